-- What the scripts share: reading arguments, finding keys, and keeping the indexes of a run in step.
--
-- It stands before every script. Times stay the text they came as, since Lua prints a number with
-- fewer digits than it has; they become numbers only to be compared.

local PREFIX = KEYS[1]
local TERMINAL = { completed = true, failed = true, cancelled = true, timed_out = true }
local ROW = {
  'workflow', 'version', 'status', 'seq', 'fence', 'owner', 'due', 'created', 'updated', 'ended',
  'key', 'correlation', 'parent', 'priority', 'detail',
}

-- Arguments, in order ---------------------------------------------------------------------------

local position = 0

local function take()
  position = position + 1
  return ARGV[position]
end

local function take_maybe() -- '' is nothing, '=x' is x
  local value = take()
  if value == '' then return nil end
  return string.sub(value, 2)
end

local function take_list()
  local values = {}
  for n = 1, tonumber(take()) do values[n] = take() end
  return values
end

local function take_run()
  return {
    id = take(), workflow = take(), created = take(), version = take(), status = take(),
    due = take_maybe(), start = take_maybe(), key = take_maybe(), correlation = take_maybe(),
    parent = take_maybe(), priority = take(),
  }
end

-- Keys ------------------------------------------------------------------------------------------

local function at(kind, name)
  if name then return PREFIX .. ':' .. kind .. ':' .. name end
  return PREFIX .. ':' .. kind
end

local function pair(first, second) -- two names as one, so that no other two give the same
  return #first .. ':' .. first .. ':' .. second
end

local function lanes_of(owner, workflow)
  return at('lanes', pair(owner, workflow))
end

local function lane_at(owner, workflow, priority)
  return at('lane', pair(owner, workflow) .. ':' .. priority)
end

-- Runs ------------------------------------------------------------------------------------------

-- Where a run that may be claimed some day stands: by owner ('' is nobody), workflow and priority.
local function lane_of(run)
  if not run.due or run.status == 'parked' or TERMINAL[run.status] then return nil end
  return lane_at(run.owner or '', run.workflow, run.priority)
end

-- As which member it stands there: among those that are due at the same time, in order of creation.
local function place_of(run)
  return run.number .. run.id
end

local function id_at(place)
  return string.sub(place, 17)
end

-- What is created is numbered; the numbers have 16 digits, so that as texts they are in order too.
local function next_number()
  return string.format('%016d', redis.call('INCR', at('number')))
end

-- Remember what the indexes say of a run, for `reindex` to compare with.
local function as_indexed(run)
  run.was = { lane = lane_of(run), due = run.due, owner = run.owner, status = run.status }
  return run
end

local function fetch(id)
  local found = redis.call('HMGET', at('run', id), 'workflow', 'status', 'seq', 'fence', 'owner',
    'due', 'created', 'priority', 'ended', 'waits', 'number')
  if not found[1] then return nil end
  return as_indexed({
    id = id, workflow = found[1], status = found[2], seq = tonumber(found[3]),
    fence = tonumber(found[4]), owner = found[5] or nil, due = found[6] or nil,
    created = found[7], priority = found[8], ended = found[9] or nil, waits = found[10] or '[]',
    number = found[11],
  })
end

local function row_of(id)
  local row = redis.call('HMGET', at('run', id), unpack(ROW))
  table.insert(row, 1, id)
  return row
end

local function disown(owner, id)
  redis.call('SREM', at('owned', owner), id)
  redis.call('SREM', at('mail', owner), id)
  if redis.call('EXISTS', at('owned', owner)) == 0 then redis.call('SREM', at('owners'), owner) end
end

local function own(owner, id)
  redis.call('SADD', at('owners'), owner)
  redis.call('SADD', at('owned', owner), id)
  if redis.call('EXISTS', at('inbox', id)) == 1 then redis.call('SADD', at('mail', owner), id) end
end

local function leave_lane(lane, run, owner)
  redis.call('ZREM', lane, place_of(run))
  if redis.call('EXISTS', lane) == 0 then
    redis.call('SREM', lanes_of(owner or '', run.workflow), run.priority)
  end
end

local function count(run, status, by)
  local field = status .. ' ' .. run.workflow
  if redis.call('HINCRBY', at('counts'), field, by) == 0 then
    redis.call('HDEL', at('counts'), field)
  end
end

-- Bring the indexes in step with what has become of a run since it was fetched.
local function reindex(run)
  local was, lane = run.was, lane_of(run)
  if was.lane and was.lane ~= lane then leave_lane(was.lane, run, was.owner) end
  if lane and was.lane ~= lane then
    redis.call('SADD', lanes_of(run.owner or '', run.workflow), run.priority)
  end
  if lane and (was.lane ~= lane or was.due ~= run.due) then
    redis.call('ZADD', lane, run.due, place_of(run))
  end
  if was.owner ~= run.owner then
    if was.owner then disown(was.owner, run.id) end
    if run.owner then own(run.owner, run.id) end
  end
  if was.status ~= run.status then
    if was.status then
      redis.call('ZREM', at('status', was.status), run.id)
      count(run, was.status, -1)
    end
    redis.call('ZADD', at('status', run.status), run.created, run.id)
    count(run, run.status, 1)
  end
  as_indexed(run)
end

local function set_maybe(id, name, value)
  if value then
    redis.call('HSET', at('run', id), name, value)
  else
    redis.call('HDEL', at('run', id), name)
  end
end

local function wake(run, when)
  if run.due and tonumber(run.due) <= tonumber(when) then return end
  run.due = when
  redis.call('HSET', at('run', run.id), 'due', when)
end

local function post(run, when, payload)
  local number = string.format('%d', redis.call('INCR', at('number')))
  redis.call('ZADD', at('inbox', run.id), number, number .. ' ' .. payload)
  if run.owner then redis.call('SADD', at('mail', run.owner), run.id) end
  wake(run, when)
end

local function deliver(id, when, payload, dedupe)
  local run = fetch(id)
  if not run or TERMINAL[run.status] then return false end
  if dedupe and redis.call('SADD', at('dedupe', id), dedupe) == 0 then return false end
  post(run, when, payload)
  reindex(run)
  return true
end

local function key_owner(new)
  return new.key and redis.call('HGET', at('keys'), pair(new.workflow, new.key)) or nil
end

local function exists(id)
  return redis.call('EXISTS', at('run', id)) == 1
end

-- Write a run that is not there; the caller calls `reindex` when it is as it should be.
local function insert(new)
  local id, number = new.id, next_number()
  redis.call('HSET', at('run', id), 'number', number, 'workflow', new.workflow, 'version', new.version,
    'status', new.status, 'seq', '0', 'fence', '0', 'created', new.created,
    'updated', new.created, 'priority', new.priority)
  for _, name in ipairs({ 'due', 'key', 'correlation', 'parent' }) do
    if new[name] then redis.call('HSET', at('run', id), name, new[name]) end
  end
  redis.call('ZADD', at('runs'), new.created, id)
  redis.call('ZADD', at('workflow', new.workflow), new.created, id)
  if new.parent then redis.call('ZADD', at('parent', new.parent), new.created, id) end
  if new.correlation then
    redis.call('ZADD', at('correlation', new.correlation), new.created, id)
  end
  if new.key then redis.call('HSET', at('keys'), pair(new.workflow, new.key), id) end
  local run = {
    id = id, workflow = new.workflow, status = new.status, seq = 0, fence = 0, due = new.due,
    created = new.created, priority = new.priority, waits = '[]', number = number,
    was = {},
  }
  if TERMINAL[new.status] then
    run.ended = new.created
    redis.call('HSET', at('run', id), 'ended', new.created)
    redis.call('ZADD', at('ended'), new.created, id)
  elseif new.start then
    post(run, new.created, new.start)
  end
  return run
end

local function release(run)
  run.owner = nil
  redis.call('HDEL', at('run', run.id), 'owner')
end

-- Owners, other than `but`, whose runs are there for the taking.
local function gone_owners(now, dead, but)
  local gone = {}
  for _, owner in ipairs(redis.call('SMEMBERS', at('owners'))) do
    if owner ~= but then
      local till = redis.call('ZSCORE', at('until'), owner)
      if not till or tonumber(till) <= now or dead[owner] then gone[#gone + 1] = owner end
    end
  end
  return gone
end

local function set_of(list)
  local set = {}
  for _, each in ipairs(list) do set[each] = true end
  return set
end
