-- A call that is sent again, because its answer was lost with the connection, is answered as the
-- first time and does nothing.
--
-- It stands between `common` and every script that writes. A caller numbers its groups of calls and
-- the calls in each; the answers of the last group are kept. The first write here is one that a
-- server without memory refuses (unless the script frees memory), so that it refuses all or nothing.

local caller, answers = KEYS[2], KEYS[3]
local group, number, kept_before, frees = tonumber(take()), take(), tonumber(take()), take()
local known = tonumber(redis.call('HGET', caller, 'group') or '-1')

if known > group then
  return redis.error_reply('STEPWELLLATE this call was given up long ago')
elseif known == group then
  local said = redis.call('HGET', answers, number)
  if said then return said end
elseif known < group - 1 or redis.call('HLEN', answers) < kept_before then
  return redis.error_reply('STEPWELLLOST acknowledged writes are gone')
else
  if frees == '1' then redis.call('UNLINK', answers) end
  redis.call('HSET', caller, 'group', group)
  redis.call('UNLINK', answers)
end

local function answer(value)
  local said = cjson.encode(value)
  redis.call('HSET', answers, number, said)
  return said
end
