-- Finding places in a log. It is a list of JSON texts that all begin the same way:
-- {"seq":1,"at":5,"peak":5,"kind":"…". Numbers rise, with gaps where a tail was cut; peaks never
-- fall. An index counts from 0, so that an event of number n is at n-1 or before it.

local function seq_of(entry) return tonumber(string.match(entry, '^{"seq":(%d+)')) end

local function peak_of(entry)
  return tonumber(string.match(entry, '^{"seq":%d+,"at":%-?%d+,"peak":(%-?%d+)'))
end

-- The first index in [low, high) whose entry `is_behind`, else `high`.
local function search(log, low, high, is_behind)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_behind(redis.call('LINDEX', log, middle)) then high = middle else low = middle + 1 end
  end
  return low
end

-- The first index whose number is above `seq`, in a log of `count` events.
local function first_behind(log, count, seq)
  if count == 0 or seq <= 0 then return 0 end
  local gone = seq_of(redis.call('LINDEX', log, -1)) - count
  if gone == 0 then return math.min(seq, count) end
  return search(log, math.max(0, math.min(seq, count) - gone), math.min(seq, count),
    function(entry) return seq_of(entry) > seq end)
end

-- The first index from which on events can be as late as `instant`.
local function first_since(log, low, high, instant)
  return search(log, low, high, function(entry) return peak_of(entry) >= instant end)
end
