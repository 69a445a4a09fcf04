-- When the next run that nobody alive owns is due.

local now, workflows = tonumber(take()), take_list()
local owners = gone_owners(now, {}, nil)
owners[#owners + 1] = ''
local first, number
for _, owner in ipairs(owners) do
  for _, workflow in ipairs(workflows) do
    for _, priority in ipairs(redis.call('SMEMBERS', lanes_of(owner, workflow))) do
      local found = redis.call('ZRANGE', lane_at(owner, workflow, priority), 0, 0, 'WITHSCORES')
      if found[2] and (not number or tonumber(found[2]) < number) then
        first, number = found[2], tonumber(found[2])
      end
    end
  end
end
return first or false
