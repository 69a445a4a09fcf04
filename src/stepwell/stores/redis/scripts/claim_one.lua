-- Give a worker this one run, whatever its state, unless somebody alive has it.

local worker, id, now, dead = take(), take(), tonumber(take()), set_of(take_list())
local run = fetch(id)
if not run or run.owner == worker then return answer(false) end
if run.owner then
  local till = redis.call('ZSCORE', at('until'), run.owner)
  if till and tonumber(till) > now and not dead[run.owner] then return answer(false) end
end
run.owner = worker
redis.call('HSET', at('run', id), 'owner', worker, 'fence', run.fence + 1)
reindex(run)
return answer(row_of(id))
