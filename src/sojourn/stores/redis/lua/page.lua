-- The next entries of some orders, each behind a position.
--
-- KEYS are tallies: how many sessions of a facet there are, by phase. An order is behind the tally's
-- name. ARGV: `active` or `created`, `up` or `down`, how many of each, the phases that are wanted (a
-- comma behind each; empty for all); then for each tally: the only phase (or empty), and the
-- position, a score and a member, both empty for the beginning. Returns for each order that has
-- some the number of its tally, its phase, and members and scores.

local order, up, most, wanted = ARGV[1], ARGV[2] == 'up', tonumber(ARGV[3]), ARGV[4]

-- Whether one member comes before another: by bytes, whatever the server's locale says.
local function is_before(left, right)
  for i = 1, math.min(#left, #right) do
    local a, b = string.byte(left, i), string.byte(right, i)
    if a ~= b then return a < b end
  end
  return #left < #right
end

-- How many entries come before the position, and whether it is there itself.
local function rank(key, score, member)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', key, score, score)
  local stop = high
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(redis.call('ZRANGE', key, middle, middle)[1], member) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, low < stop and redis.call('ZRANGE', key, low, low)[1] == member
end

local command = up and 'ZRANGE' or 'ZREVRANGE'

local function entries_of(key, score, member)
  local from = 0
  if score ~= '' then
    local before, there = rank(key, score, member)
    from = up and before + (there and 1 or 0) or redis.call('ZCARD', key) - before
  end
  return redis.call(command, key, from, from + most - 1, 'WITHSCORES')
end

local found = {}
for i, tally in ipairs(KEYS) do
  local only, score, member = ARGV[3 * i + 2], ARGV[3 * i + 3], ARGV[3 * i + 4]
  for _, phase in ipairs(redis.call('HKEYS', tally)) do
    if (only == '' or only == phase) and (wanted == '' or string.find(wanted, phase .. ',', 1, true)) then
      local entries = entries_of(tally .. ':' .. phase .. ':' .. order, score, member)
      if #entries > 0 then found[#found + 1] = {i, phase, entries} end
    end
  end
end
return found
