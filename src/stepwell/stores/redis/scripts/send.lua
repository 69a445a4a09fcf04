-- Put messages into inboxes, and say which were taken.

local accepted = {}
for n = 1, tonumber(take()) do
  local id, when, payload, dedupe = take(), take(), take(), take_maybe()
  accepted[n] = deliver(id, when, payload, dedupe)
end
return answer(accepted)
