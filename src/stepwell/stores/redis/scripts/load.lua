-- All that a turn needs of some runs, each of one moment.

local loaded = {}
for _, id in ipairs(take_list()) do
  if exists(id) then
    local snapshot = redis.call('HMGET', at('run', id), 'snapshot_seq', 'snapshot')
    loaded[#loaded + 1] = {
      row_of(id), snapshot[1], snapshot[2],
      redis.call('LRANGE', at('journal', id), snapshot[1] or 0, -1),
      redis.call('ZRANGE', at('inbox', id), 0, -1),
    }
  end
end
return loaded
