-- How many sessions some tallies have. KEYS are tallies, ARGV is the phases that are wanted, a comma
-- behind each; empty for all.

local wanted = ARGV[1]
local count = 0
for _, tally in ipairs(KEYS) do
  local phases = redis.call('HGETALL', tally)
  for i = 1, #phases, 2 do
    if wanted == '' or string.find(wanted, phases[i] .. ',', 1, true) then
      count = count + tonumber(phases[i + 1])
    end
  end
end
return count
