"""Clients and gateways are given to a pipeline, beside its data: real ones or others for tests.

python examples/pipelines_dependencies.py
"""

from abc import ABC, abstractmethod

from stepwell.pipeline import Pipeline


class PaymentGateway(ABC):
    @abstractmethod
    async def charge(self, amount):
        """Charge so much; the transaction's id."""


class PretendGateway(PaymentGateway):
    async def charge(self, amount):
        return f"pretended to charge {amount}"


class Shop:
    def __init__(self, gateway):
        # deps are never kept, so the same pipeline may be durable; ctx={"gateway": gateway} would
        # do as well for one that is not.
        self.pipeline = Pipeline(ctx={"order_id": "order_001"}, deps={"gateway": gateway})
        self.pipeline.add_step(self.charge_card)

    async def charge_card(self, ctx, gateway):
        assert ctx["gateway"] is gateway
        return await gateway.charge(100)


print(Shop(PretendGateway()).pipeline.run_sync()["charge_card"])
