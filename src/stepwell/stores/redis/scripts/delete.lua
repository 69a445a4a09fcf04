-- Delete runs that are over, with all that belongs to them.

local function forget_blobs(id)
  for _, digest in ipairs(redis.call('SMEMBERS', at('blobs', id))) do
    if redis.call('HINCRBY', at('refs'), digest, -1) <= 0 then
      redis.call('HDEL', at('refs'), digest)
      redis.call('UNLINK', at('blob', digest))
    end
  end
end

local deleted = 0
for _, id in ipairs(take_list()) do
  local run = fetch(id)
  if run and TERMINAL[run.status] then
    local more = redis.call('HMGET', at('run', id), 'key', 'correlation', 'parent')
    if run.owner then disown(run.owner, id) end
    redis.call('ZREM', at('runs'), id)
    redis.call('ZREM', at('workflow', run.workflow), id)
    redis.call('ZREM', at('status', run.status), id)
    redis.call('ZREM', at('ended'), id)
    count(run, run.status, -1)
    if more[1] then redis.call('HDEL', at('keys'), pair(run.workflow, more[1])) end
    if more[2] then redis.call('ZREM', at('correlation', more[2]), id) end
    if more[3] then redis.call('ZREM', at('parent', more[3]), id) end
    forget_blobs(id)
    redis.call('UNLINK', at('run', id), at('journal', id), at('inbox', id), at('dedupe', id),
      at('blobs', id))
    deleted = deleted + 1
  end
end
return answer(deleted)
