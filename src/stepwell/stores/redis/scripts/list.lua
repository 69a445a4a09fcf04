-- One page of a listing, newest first, from the smallest index that holds it all.
--
-- Looks at no more runs than it is allowed to, and says where it stopped.

local limit, budget = tonumber(take()), tonumber(take())
local below_at, below_id, since = take_maybe(), take(), take_maybe()
local only = { workflow = take_maybe(), parent = take_maybe(), correlation = take_maybe() }
local waiting, by_status = take_maybe(), take() == '1'
local statuses = take_list()
local wanted = set_of(statuses)

local function smallest()
  local best, size
  local function offer(keys)
    local total = 0
    for _, key in ipairs(keys) do total = total + redis.call('ZCARD', key) end
    if not best or total < size then best, size = keys, total end
  end
  offer({ at('runs') })
  for name, value in pairs(only) do offer({ at(name, value) }) end
  if waiting then offer({ at('waiting', waiting) }) end
  if by_status then
    local keys = {}
    for status in pairs(wanted) do keys[#keys + 1] = at('status', status) end
    offer(keys)
  end
  return best
end

local function before(created, id, other_created, other_id)
  if created ~= other_created then return created < other_created end
  return id < other_id
end

-- The rank, from the newest, of the first member after the cursor.
local function start_of(key)
  if not below_at then return 0 end
  local bound = tonumber(below_at)
  local low, high = 0, redis.call('ZCARD', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('ZREVRANGE', key, middle, middle, 'WITHSCORES')
    if before(tonumber(found[2]), found[1], bound, below_id) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function head(source)
  if source.next > #source.chunk then
    source.chunk = redis.call('ZREVRANGE', source.key, source.rank, source.rank + 63, 'WITHSCORES')
    source.rank = source.rank + 64
    source.next = 1
  end
  local id = source.chunk[source.next]
  if not id then return nil end
  return id, source.chunk[source.next + 1]
end

local function matches(id)
  local row = redis.call('HMGET', at('run', id), 'workflow', 'parent', 'correlation', 'status')
  if only.workflow and row[1] ~= only.workflow then return false end
  if only.parent and row[2] ~= only.parent then return false end
  if only.correlation and row[3] ~= only.correlation then return false end
  if by_status and not wanted[row[4]] then return false end
  return not waiting or redis.call('ZSCORE', at('waiting', waiting), id) and true
end

local sources = {}
for n, key in ipairs(smallest()) do
  sources[n] = { key = key, rank = start_of(key), chunk = {}, next = 1 }
end

local rows = {}
local stopped_at, stopped_id = false, false
for _ = 1, budget do
  local best, best_id, best_at
  for _, source in ipairs(sources) do
    local id, created = head(source)
    if id and (not best or before(tonumber(best_at), best_id, tonumber(created), id)) then
      best, best_id, best_at = source, id, created
    end
  end
  stopped_at, stopped_id = best_at or false, best_id or false
  if not best or since and tonumber(best_at) < tonumber(since) then
    stopped_at, stopped_id = false, false
    break
  end
  best.next = best.next + 2
  if matches(best_id) then rows[#rows + 1] = row_of(best_id) end
  if #rows == limit then break end
end
return { rows, stopped_at, stopped_id }
