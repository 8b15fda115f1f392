-- A session as of one moment: what is kept of it, its user's tier, the app's, a window of its log.
--
-- KEYS: the session, its log, its kinds, the user's tier, the app's, the outbox, its numbers; a key
-- that is of no interest is the session's again. ARGV: the names of fields, joined by commas; then,
-- for a window: which end counts (`last`, `first` or `all`), how many, the bounds `after`, `before`
-- and `since` (empty for none), how many of its first ones come along in front of the last ones,
-- whether only some kinds count (empty: all do), and these.
-- Returns the fields, the two tiers, the outbox, its numbers, and the events.

local session, log, kinds = KEYS[1], KEYS[2], KEYS[3]

local function other(i) return KEYS[i] ~= session and KEYS[i] or nil end

-- Indexes in [low, high) whose events have one of the wanted kinds, at most so many.
local function of_kind(low, high, wanted, first, most)
  local found = {}
  local size = 4096
  local from, step = low, size
  if not first then from, step = high - size, -size end
  while #found < most and from < high and from + size > low do
    local begin = math.max(from, low)
    local bytes = redis.call('GETRANGE', kinds, begin, math.min(from + size, high) - 1)
    local start, stop, by = 1, #bytes, 1
    if not first then start, stop, by = #bytes, 1, -1 end
    for i = start, stop, by do
      if wanted[string.byte(bytes, i)] then
        found[#found + 1] = begin + i - 1
        if #found == most then break end
      end
    end
    from = from + step
  end
  return found
end

-- So many indexes of [low, high), from one of its ends.
local function of_any(low, high, first, most)
  local found = {}
  if first then
    for i = low, math.min(high, low + most) - 1 do found[#found + 1] = i end
  else
    for i = high - 1, math.max(low, high - most), -1 do found[#found + 1] = i end
  end
  return found
end

-- The entries at some indexes, which rise or fall: in one piece where they are close together.
local function entries_at(indexes)
  local found = {}
  for from = 1, #indexes, 64 do
    local upto = math.min(from + 63, #indexes)
    local low, high = indexes[from], indexes[upto]
    if low > high then low, high = high, low end
    if high - low < (upto - from + 1) * 8 then
      local piece = redis.call('LRANGE', log, low, high)
      for i = from, upto do found[i] = piece[indexes[i] - low + 1] end
    else
      for i = from, upto do found[i] = redis.call('LINDEX', log, indexes[i]) end
    end
  end
  return found
end

-- The numbers that stand for the wanted kinds; the last one stands for all kinds beyond it.
local function numbers_of(kinds_of, wanted)
  local found = {}
  for i, name in ipairs(cjson.decode(kinds_of or '[]')) do
    if wanted[name] then found[math.min(i - 1, 255)] = true end
  end
  return found
end

local function at_of(entry) return tonumber(string.match(entry, '^{"seq":%d+,"at":(%-?%d+)')) end

local function backwards(list)
  local turned = {}
  for i = #list, 1, -1 do turned[#turned + 1] = list[i] end
  return turned
end

-- Those of [low, high) that match, at most so many from one end, in the order of that end.
local function matching(low, high, first, most, since, wanted)
  local numbers = wanted and numbers_of(redis.call('HGET', session, 'kinds'), wanted)
  local found = {}
  while #found < most and low < high do
    local indexes = numbers and of_kind(low, high, numbers, first, most)
      or of_any(low, high, first, most)
    if #indexes == 0 then break end
    for _, entry in ipairs(entries_at(indexes)) do
      local fits = (not since or at_of(entry) >= since)
        and (not wanted or not numbers[255] or wanted[cjson.decode(entry).kind])
      if fits and #found < most then found[#found + 1] = entry end
    end
    if first then low = indexes[#indexes] + 1 else high = indexes[#indexes] end
  end
  return found
end

-- Those of [low, high) that count, ascending.
local function part(low, high, first, most, since, wanted)
  if not wanted and not since then
    if first then return redis.call('LRANGE', log, low, math.min(high, low + most) - 1) end
    return redis.call('LRANGE', log, math.max(low, high - most), high - 1)
  end
  local found = matching(low, high, first, most, since, wanted)
  return first and found or backwards(found)
end

local function window()
  local first, limit, opening = ARGV[2] == 'first', tonumber(ARGV[3]), tonumber(ARGV[7])
  local count = redis.call('LLEN', log)
  local low, high = 0, count
  if ARGV[4] ~= '' then low = first_behind(log, count, tonumber(ARGV[4])) end
  if ARGV[5] ~= '' then high = first_behind(log, count, tonumber(ARGV[5]) - 1) end
  local since = ARGV[6] ~= '' and tonumber(ARGV[6]) or nil
  if since then low = first_since(log, low, high, since) end
  if low >= high or limit == 0 then return {} end
  local wanted
  if ARGV[8] ~= '' then
    wanted = {}
    for i = 9, #ARGV do wanted[ARGV[i]] = true end
  end
  local most = ARGV[2] == 'all' and high - low or limit
  local found = part(low, high, first, most, since, wanted)
  if opening == 0 or #found < most then return found end
  local rest = first_behind(log, count, seq_of(found[1]) - 1)
  if low >= rest then return found end
  local both = part(low, rest, true, opening, since, wanted)
  for _, entry in ipairs(found) do both[#both + 1] = entry end
  return both
end

local names = {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
local outbox = other(6)
return {
  redis.call('HMGET', session, unpack(names)),
  other(4) and redis.call('HGETALL', KEYS[4]) or {},
  other(5) and redis.call('HGETALL', KEYS[5]) or {},
  outbox and redis.call('LRANGE', outbox, 0, -1) or {},
  outbox and redis.call('HGETALL', KEYS[7]) or {},
  ARGV[2] and window() or {},
}
