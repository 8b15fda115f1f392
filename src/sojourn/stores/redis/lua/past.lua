-- What is past its time in some orders. KEYS are sorted sets, ARGV is now. Returns the number of
-- each key that has something, with its members.

local found = {}
for i, key in ipairs(KEYS) do
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[1])
  if #members > 0 then found[#found + 1] = {i, members} end
end
return found
