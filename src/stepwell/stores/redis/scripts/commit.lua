-- Keep one turn of a run, whole or not at all.

local function take_commit()
  local commit = {
    run = take(), fence = tonumber(take()), at = take(), status = take(), due = take_maybe(),
    worker = take(), release = take() == '1', detail = take_maybe(), waits = take_maybe(),
    snapshot_seq = take_maybe(), snapshot = take(),
    rows = take_list(), consumed = take_list(), children = {}, messages = {}, blobs = {},
  }
  if take() == '1' then commit.create = take_run() end
  for n = 1, tonumber(take()) do commit.children[n] = take_run() end
  for n = 1, tonumber(take()) do
    commit.messages[n] = { run = take(), at = take(), payload = take(), dedupe = take_maybe() }
  end
  for n = 1, tonumber(take()) do commit.blobs[n] = { digest = take(), data = take() } end
  return commit
end

-- Everything that may be refused is looked at before anything is written.
local function refusal(commit, run)
  if commit.create then
    local existing = key_owner(commit.create)
    if existing then return { 'kept', existing } end
    if exists(commit.create.id) then return { 'exists', commit.create.id } end
  else
    if not run or run.fence ~= commit.fence or not run.owner then return { 'lost' } end
    if TERMINAL[run.status] and commit.status ~= run.status then return { 'ended', run.status } end
  end
  for _, message in ipairs(commit.consumed) do
    if commit.create or redis.call('ZCOUNT', at('inbox', commit.run), message, message) == 0 then
      return { 'consumed', message }
    end
  end
  return nil
end

local function set_waits(run, waits)
  if waits == run.waits then return end
  local wanted = set_of(cjson.decode(waits))
  for _, tag in ipairs(cjson.decode(run.waits)) do
    if not wanted[tag] then redis.call('ZREM', at('waiting', tag), run.id) end
  end
  for tag in pairs(wanted) do redis.call('ZADD', at('waiting', tag), run.created, run.id) end
  run.waits = waits
  redis.call('HSET', at('run', run.id), 'waits', waits)
end

local function consume(run, messages)
  for _, message in ipairs(messages) do
    redis.call('ZREMRANGEBYSCORE', at('inbox', run.id), message, message)
  end
  if #messages > 0 and run.owner and redis.call('EXISTS', at('inbox', run.id)) == 0 then
    redis.call('SREM', at('mail', run.owner), run.id)
  end
end

local function apply(run, commit)
  local hash = at('run', run.id)
  for _, row in ipairs(commit.rows) do
    redis.call('RPUSH', at('journal', run.id), commit.at .. ' ' .. row)
  end
  consume(run, commit.consumed)
  run.status, run.due = commit.status, commit.due
  redis.call('HSET', hash, 'seq', run.seq + #commit.rows, 'status', run.status,
    'updated', commit.at)
  if run.due ~= run.was.due then set_maybe(run.id, 'due', run.due) end
  if commit.detail then redis.call('HSET', hash, 'detail', commit.detail) end
  if commit.snapshot_seq then
    redis.call('HSET', hash, 'snapshot_seq', commit.snapshot_seq, 'snapshot', commit.snapshot)
  end
  if commit.release then release(run) end
  if TERMINAL[run.status] then
    if not run.ended then
      run.ended = commit.at
      redis.call('HSET', hash, 'ended', commit.at)
      redis.call('ZADD', at('ended'), commit.at, run.id)
    end
    set_waits(run, '[]')
  else
    if redis.call('EXISTS', at('inbox', run.id)) == 1 then wake(run, commit.at) end
    if commit.waits then set_waits(run, commit.waits) end
  end
  reindex(run)
end

-- Whoever a commit concerns refers to its payloads: the sender may be deleted first.
local function keep_blobs(run, commit)
  if #commit.blobs == 0 then return end
  local concerned = { [run.id] = true }
  for _, child in ipairs(commit.children) do concerned[child.id] = exists(child.id) end
  for _, message in ipairs(commit.messages) do concerned[message.run] = exists(message.run) end
  concerned[run.id] = true
  for _, blob in ipairs(commit.blobs) do
    redis.call('SET', at('blob', blob.digest), blob.data, 'NX')
    for id, there in pairs(concerned) do
      if there and redis.call('SADD', at('blobs', id), blob.digest) == 1 then
        redis.call('HINCRBY', at('refs'), blob.digest, 1)
      end
    end
  end
end

local commit = take_commit()
local run = not commit.create and fetch(commit.run) or nil
local refused = refusal(commit, run)
if refused then return answer(refused) end
if commit.create then
  run = insert(commit.create)
  run.owner, run.fence = commit.worker, 1
  -- Not what was there before, but what the row says now.
  run.was.due = run.due
  redis.call('HSET', at('run', run.id), 'owner', run.owner, 'fence', 1)
end
apply(run, commit)
for _, child in ipairs(commit.children) do
  if not exists(child.id) and not key_owner(child) then reindex(insert(child)) end
end
for _, message in ipairs(commit.messages) do
  deliver(message.run, message.at, message.payload, message.dedupe)
end
keep_blobs(run, commit)
return answer({ 'kept', run.id })
