-- Give a worker the claimable runs of its workflows, highest priority first, then by due time, then
-- in order of creation.

local worker, now, limit = take(), take(), tonumber(take())
local workflows, dead = take_list(), set_of(take_list())

local function lanes()
  local owners = gone_owners(tonumber(now), dead, worker)
  owners[#owners + 1] = ''
  local by_priority, priorities = {}, {}
  for _, owner in ipairs(owners) do
    for _, workflow in ipairs(workflows) do
      for _, priority in ipairs(redis.call('SMEMBERS', lanes_of(owner, workflow))) do
        if not by_priority[priority] then
          by_priority[priority] = {}
          priorities[#priorities + 1] = priority
        end
        table.insert(by_priority[priority], lane_at(owner, workflow, priority))
      end
    end
  end
  table.sort(priorities, function(a, b) return tonumber(a) > tonumber(b) end)
  return priorities, by_priority
end

local function due_in(keys, room)
  local due = {}
  for _, lane in ipairs(keys) do
    local found = redis.call('ZRANGEBYSCORE', lane, '-inf', now, 'WITHSCORES', 'LIMIT', 0, room)
    for n = 1, #found, 2 do due[#due + 1] = { place = found[n], due = tonumber(found[n + 1]) } end
  end
  table.sort(due, function(a, b)
    if a.due ~= b.due then return a.due < b.due end
    return a.place < b.place
  end)
  return due
end

local taken = {}
local priorities, by_priority = lanes()
for _, priority in ipairs(priorities) do
  for _, each in ipairs(due_in(by_priority[priority], limit - #taken)) do
    if #taken == limit then break end
    local run = fetch(id_at(each.place))
    run.owner = worker
    redis.call('HSET', at('run', run.id), 'owner', worker, 'fence', run.fence + 1)
    reindex(run)
    taken[#taken + 1] = row_of(run.id)
  end
  if #taken == limit then break end
end
return answer(taken)
