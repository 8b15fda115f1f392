-- The next entries of some orders, each behind a position.
--
-- KEYS are sorted sets. ARGV: `up` or `down`, how many of each, and the position: a score and a
-- member, or nothing. A member begins with 14 hexadecimal digits. Returns a list of members and
-- scores for each key.

local up, most, score, member = ARGV[1] == 'up', tonumber(ARGV[2]), ARGV[3], ARGV[4]

-- Whether one member comes before another: by bytes, whatever the server's locale says.
local function is_before(left, right)
  for i = 1, math.min(#left, #right) do
    local a, b = string.byte(left, i), string.byte(right, i)
    if a ~= b then return a < b end
  end
  return #left < #right
end

-- How many entries come before the position, and whether it is there itself.
local function rank(key)
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

local found = {}
for i, key in ipairs(KEYS) do
  local from = 0
  if score then
    local before, there = rank(key)
    if up then
      from = before + (there and 1 or 0)
    else
      from = redis.call('ZCARD', key) - before
    end
  end
  local command = up and 'ZRANGE' or 'ZREVRANGE'
  found[i] = redis.call(command, key, from, from + most - 1, 'WITHSCORES')
end
return found
