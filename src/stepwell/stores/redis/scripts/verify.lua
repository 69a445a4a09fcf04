-- What is wrong with some runs, and with the indexes where they stand.

local faults = {}

local function fault(id, text)
  faults[#faults + 1] = 'run ' .. id .. ': ' .. text
end

local function must_stand(id, key, what)
  if not redis.call('ZSCORE', key, id) then fault(id, 'it is missing from ' .. what) end
end

local function check_journal(id, run)
  local length = redis.call('LLEN', at('journal', id))
  if length ~= run.seq then
    fault(id, 'it should have ' .. run.seq .. ' journal rows; it has ' .. length)
  end
  local snapshot = redis.call('HGET', at('run', id), 'snapshot_seq')
  if snapshot and tonumber(snapshot) > run.seq then
    fault(id, 'its snapshot is of journal row ' .. snapshot .. ', after its last, ' .. run.seq)
  end
end

local function check_indexes(id, run)
  must_stand(id, at('workflow', run.workflow), 'the runs of its workflow')
  must_stand(id, at('status', run.status), 'the runs that are ' .. run.status)
  if TERMINAL[run.status] then
    must_stand(id, at('ended'), 'the runs that have ended')
  end
  local lane = lane_of(run)
  if lane then
    local due = redis.call('ZSCORE', lane, place_of(run))
    if not due or tonumber(due) ~= tonumber(run.due) then
      fault(id, 'nobody can claim it when it is due')
    end
    if redis.call('SISMEMBER', lanes_of(run.owner or '', run.workflow), run.priority) == 0 then
      fault(id, 'its priority is not known to those who claim')
    end
  end
  if run.owner and redis.call('SISMEMBER', at('owned', run.owner), id) == 0 then
    fault(id, 'it is missing from what ' .. run.owner .. ' owns')
  end
  for _, tag in ipairs(cjson.decode(run.waits)) do
    must_stand(id, at('waiting', tag), 'the runs that wait for ' .. tag)
  end
end

for _, id in ipairs(take_list()) do
  local run = fetch(id)
  if not run then
    if redis.call('ZSCORE', at('runs'), id) then fault(id, 'it is listed and not there') end
  else
    check_journal(id, run)
    check_indexes(id, run)
    if (TERMINAL[run.status] or false) ~= (run.ended ~= nil) then
      fault(id, 'it is ' .. run.status .. ', which does not fit the end it has or lacks')
    end
    for _, digest in ipairs(redis.call('SMEMBERS', at('blobs', id))) do
      if redis.call('EXISTS', at('blob', digest)) == 0 then
        fault(id, 'its payload ' .. digest .. ' is missing')
      end
    end
  end
end
return faults
