-- What a decision has to know of a session's log, and of a tier.
--
-- KEYS: the log, the ids of its events, a tier. ARGV: questions, each with two arguments:
-- `named id -`, the events of that id; `tail most upto`, the last so many up to a number;
-- `deltas from upto`, how many events there are, and those that have a delta in [from, upto) of
-- them; `sizes - -`, names of the tier and the sizes of values.
-- Returns a list for each question.

local log, ids, tier = KEYS[1], KEYS[2], KEYS[3]

local questions = {
  named = function(id)
    local found = {}
    local count = redis.call('LLEN', log)
    for number in string.gmatch(redis.call('HGET', ids, id) or '', '%d+') do
      local index = first_behind(log, count, tonumber(number) - 1)
      local entry = redis.call('LINDEX', log, index)
      if entry and seq_of(entry) == tonumber(number) then found[#found + 1] = entry end
    end
    return found
  end,
  tail = function(most, upto)
    local count = redis.call('LLEN', log)
    local high = first_behind(log, count, tonumber(upto))
    if high == 0 then return {} end
    return redis.call('LRANGE', log, math.max(0, high - tonumber(most)), high - 1)
  end,
  deltas = function(low, high)
    local count = redis.call('LLEN', log)
    local found = {count}
    for from = tonumber(low), math.min(tonumber(high), count) - 1, 500 do
      local last = math.min(from + 500, tonumber(high)) - 1
      for _, entry in ipairs(redis.call('LRANGE', log, from, last)) do
        if string.match(entry, '^{"seq":%d+,"at":%-?%d+,"peak":%-?%d+,"[cd]') then
          found[#found + 1] = entry
        end
      end
    end
    return found
  end,
  sizes = function()
    local found = {}
    for _, name in ipairs(redis.call('HKEYS', tier)) do
      found[#found + 1] = name
      found[#found + 1] = redis.call('HSTRLEN', tier, name)
    end
    return found
  end,
}

local answers = {}
for at = 1, #ARGV, 3 do answers[#answers + 1] = questions[ARGV[at]](ARGV[at + 1], ARGV[at + 2]) end
return answers
