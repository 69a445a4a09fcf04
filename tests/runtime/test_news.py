"""News of runs: who listens misses nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio

from stepwell.runtime.news import News


async def test_who_has_begun_to_listen_hears_what_is_told_before_the_loop_turns() -> None:
    news = News()
    heard = news.of("run")
    news.tell("run")
    assert heard.done()


async def test_news_of_others_are_none() -> None:
    news = News()
    heard = news.of("run")
    news.tell("another")
    news.tell_but({"run"})
    assert not heard.done()
    heard.cancel()


async def test_who_listens_no_more_is_forgotten() -> None:
    news = News()
    one, other = news.of("run"), news.of("run")
    one.cancel()
    await asyncio.sleep(0)
    news.tell("run")
    assert other.done()
    last = news.of("run")
    last.cancel()
    await asyncio.sleep(0)
    assert not news._waiting
