-- Create a run that nobody owns, unless its key or id is taken.

local new = take_run()
local existing = key_owner(new)
if existing then return answer({ 'kept', existing }) end
if exists(new.id) then return answer({ 'exists', new.id }) end
reindex(insert(new))
return answer({ 'kept', new.id })
