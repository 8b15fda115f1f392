-- Checks, then commands: all of them, or none if a check fails.
--
-- KEYS are all keys that are touched, so that a node of a cluster runs this only while it has them
-- all. ARGV: how many checks, then each as its name, how many arguments, and those; then commands
-- in the same way. The first argument of a command is the number of its key.
-- Returns 0, or the number of the first check that failed.

--
-- While a slot moves to another node, a key that is not there is not ours to make. So a key that a
-- command may have emptied, which removes it, is never touched again: some get a mark that stays.

local at = 1
local watched = {}
local emptied = {}

local function key(offset) return KEYS[tonumber(ARGV[at + offset])] end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local checks = {
  -- The session has this epoch and this version.
  session = function()
    local is = redis.call('HMGET', key(0), 'epoch', 'v', 'seen')
    watched[key(0)] = is[3]
    return is[1] == ARGV[at + 1] and is[2] == ARGV[at + 2]
  end,
  -- The session has this epoch and, unless they are empty, this phase and this version.
  guard = function()
    local is = redis.call('HMGET', key(0), 'epoch', 'phase', 'v')
    local phase, version = ARGV[at + 2], ARGV[at + 3]
    return is[1] == ARGV[at + 1] and (phase == '' or is[2] == phase)
      and (version == '' or is[3] == version)
  end,
  absent = function() return redis.call('EXISTS', key(0)) == 0 end,
  -- The note says this; empty is no note at all.
  says = function() return (redis.call('GET', key(0)) or '') == ARGV[at + 1] end,
  -- The field says this; empty is no field at all.
  field = function()
    return (redis.call('HGET', key(0), ARGV[at + 1]) or '') == ARGV[at + 2]
  end,
  -- The note is free, or says this already.
  free = function()
    local is = redis.call('GET', key(0))
    return not is or is == ARGV[at + 1]
  end,
  -- The session's field says something else, or the session is in one of these phases.
  gone = function(count)
    local is = redis.call('HMGET', key(0), ARGV[at + 1], 'phase')
    if is[1] ~= ARGV[at + 2] then return true end
    for i = at + 3, at + count - 1 do
      if is[2] == ARGV[i] then return true end
    end
    return false
  end,
  -- There are exactly so many children.
  children = function() return redis.call('ZCARD', key(0)) == tonumber(ARGV[at + 1]) end,
  -- This was not done here yet: the number is above the last one of its route.
  undone = function()
    return tonumber(redis.call('HGET', key(0), ARGV[at + 1]) or '0') < tonumber(ARGV[at + 2])
  end,
  -- The errand before was done here.
  reached = function()
    return tonumber(redis.call('HGET', key(0), ARGV[at + 1]) or '0') >= tonumber(ARGV[at + 2])
  end,
}

local function names_in(dockeys, prefix)
  local last = string.sub(prefix, 1, -2) .. ';' -- what comes behind a colon
  local found = redis.call('ZRANGEBYLEX', dockeys, '[' .. prefix, '(' .. last)
  for i, field in ipairs(found) do found[i] = string.sub(field, #prefix + 1) end
  return found
end

-- The id of an event. Few have to be read whole: bodies are long.
local function id_of(entry)
  local plain = '^{"seq":%d+,"at":%-?%d+,"peak":%-?%d+,"kind":"[^"\\]*","id":"([^"\\]*)"'
  return string.match(entry, plain) or cjson.decode(entry).id
end

-- The events of a log in [low, high), some at a time: a log may be larger than the memory left.
local function pieces(log, low, high)
  local from = low - 500
  return function()
    from = from + 500
    return from < high and redis.call('LRANGE', log, from, math.min(from + 500, high) - 1) or nil
  end
end

-- The ids of some events, and by id their numbers; nothing if one can not be read.
local function names_of(piece)
  local names, numbers = {}, {}
  for _, entry in ipairs(piece) do
    local fine, id = pcall(id_of, entry)
    local number = string.match(entry, '^{"seq":(%d+)')
    if not fine or type(id) ~= 'string' or not number then return nil end
    if not numbers[id] then names[#names + 1] = id end
    numbers[id] = numbers[id] and numbers[id] .. ',' .. number or number
  end
  return names, numbers
end

-- Note the ids of the first events of a log under a new key, as if the others had been cut off.
-- Returns whether all of these could be read.
local function note_first(log, kept, ids)
  redis.call('HSET', ids, '', '')
  for piece in pieces(log, 0, kept) do
    local names, numbers = names_of(piece)
    if not names then return false end
    local noted = {}
    for i, before in ipairs(redis.call('HMGET', ids, unpack(names))) do
      local now = numbers[names[i]]
      noted[#noted + 1] = names[i]
      noted[#noted + 1] = before and before .. ',' .. now or now
    end
    redis.call('HSET', ids, unpack(noted))
  end
  return true
end

local function first_kinds(kinds, kept)
  return kept > 0 and redis.call('GETRANGE', kinds, 0, kept - 1) or ''
end

-- Whether the slot of a key is on its way to another node. One that has it in part does not answer
-- for two keys if it lacks one.
local function is_moving(key, lacking)
  return type(redis.pcall('EXISTS', key, lacking)) == 'table'
end

-- Have only the first events of a log noted, anew. Returns whether that could be done: in a slot
-- that moves no key can be made, and an event that can not be read does not tell its id.
local function keep_ids(log, ids, kept)
  local anew = ids .. ':kept'
  if is_moving(ids, anew) then return false end
  if not note_first(log, kept, anew) then
    redis.call('UNLINK', anew)
    return false
  end
  redis.call('UNLINK', ids) -- or all that it holds would be freed while everybody waits
  redis.call('RENAME', anew, ids)
  return true
end

-- Have the events of a log in [kept, count) noted no more: those above a number.
local function drop_ids(log, ids, kept, count, seq)
  for piece in pieces(log, kept, count) do
    local names, gone, noted = {}, {}, {}
    for i, entry in ipairs(piece) do names[i] = id_of(entry) end
    for i, numbers in ipairs(redis.call('HMGET', ids, unpack(names))) do
      local left = {}
      for number in string.gmatch(numbers or '', '%d+') do
        if tonumber(number) <= seq then left[#left + 1] = number end
      end
      if #left == 0 then
        gone[#gone + 1] = names[i]
      else
        noted[#noted + 1] = names[i]
        noted[#noted + 1] = table.concat(left, ',')
      end
    end
    if #gone > 0 then redis.call('HDEL', ids, unpack(gone)) end
    if #noted > 0 then redis.call('HSET', ids, unpack(noted)) end
  end
end

-- Remove the events behind a number. This costs what stays or what goes, whichever is less.
local function cut(log, ids, kinds, seq)
  local count = redis.call('LLEN', log)
  local kept = first_behind(log, count, seq)
  if kept == count then return end
  redis.call('HSET', ids, '', '')
  if kept > count - kept or not keep_ids(log, ids, kept) then
    drop_ids(log, ids, kept, count, seq)
  end
  redis.call('SET', kinds, first_kinds(kinds, kept))
  if kept == 0 then
    emptied[log] = count -- once what is new is there
  else
    redis.call('LTRIM', log, 0, kept - 1)
  end
end

-- Copy a log as of a number by its first events, if they are few: it may go on for long behind
-- them. Returns whether that was done. None of the new keys is there before.
local function copy_first(log, kinds, new_log, new_ids, new_kinds, seq)
  local count = redis.call('LLEN', log)
  local kept = first_behind(log, count, seq)
  if kept == count or kept > count - kept then return false end
  if not note_first(log, kept, new_ids) then
    redis.call('UNLINK', new_ids)
    return false
  end
  for piece in pieces(log, 0, kept) do redis.call('RPUSH', new_log, unpack(piece)) end
  redis.call('SET', new_kinds, first_kinds(kinds, kept))
  return true
end

local commands = {
  -- Tell whoever watches the session of key 0, which a check has looked at.
  wake = function()
    local seen = watched[key(0)]
    if seen == nil then seen = redis.call('HGET', key(0), 'seen') end
    if seen and tonumber(seen) > now() then redis.call('PUBLISH', ARGV[at + 1], '') end
  end,
  -- Have the session, if it is there, say for so many seconds that it is watched.
  seen = function()
    if redis.call('EXISTS', key(0)) == 1 then
      local last = now() + tonumber(ARGV[at + 1]) * 1000000
      redis.call('HSET', key(0), 'seen', string.format('%.0f', last))
    end
  end,
  -- Note event ids: pairs of id and number.
  ids = function(count)
    local ids = key(0)
    for i = at + 1, at + count - 1, 2 do
      if redis.call('HSETNX', ids, ARGV[i], ARGV[i + 1]) == 0 then
        redis.call('HSET', ids, ARGV[i], redis.call('HGET', ids, ARGV[i]) .. ',' .. ARGV[i + 1])
      end
    end
  end,
  -- Count by phase. What is none is not there.
  tally = function()
    local left = redis.call('HINCRBY', key(0), ARGV[at + 1], ARGV[at + 2])
    if left <= 0 then redis.call('HDEL', key(0), ARGV[at + 1]) end
  end,
  -- Take a member out of an order, and count it out if it was there.
  unlist = function()
    if redis.call('ZREM', key(0), ARGV[at + 2]) == 1 then
      if redis.call('HINCRBY', key(1), ARGV[at + 3], -1) <= 0 then
        redis.call('HDEL', key(1), ARGV[at + 3])
      end
    end
  end,
  cut = function() cut(key(0), key(1), key(2), tonumber(ARGV[at + 3])) end,
  -- Put a document. Arguments behind the keys: collection, name, facts that it has anyway, when
  -- it was created and updated, when it expires, whether one that is there stays as it is or is
  -- replaced as if it had never been (`new`, `whole`), and the parts of the body.
  put = function(count)
    local docs, dockeys, docplaces, bodies = key(0), key(1), key(2), key(3)
    local prefix, name, facts = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    local created, updated, expires, how = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9], ARGV[at + 10]
    local field = prefix .. name
    local old = redis.call('HGET', docs, field)
    if old and how == 'new' then return end
    local number
    if old then
      number = tonumber(string.match(old, '^{"number":(%d+)'))
      local ended = string.match(old, '"expires_at":(%-?%d+)')
      local lives = not ended or tonumber(ended) > tonumber(updated)
      if how == '' and lives then created = string.match(old, '"created_at":(%-?%d+)') end
    else
      number = redis.call('HINCRBY', docs, '#', 1)
      redis.call('HSET', bodies, '', '')
      redis.call('ZADD', dockeys, 0, '', 0, field)
      redis.call('ZADD', docplaces, 0, '', 0, string.format('%s%016.0f:%s', prefix, number, name))
    end
    redis.call('HSET', docs, field, string.format('{"number":%.0f,"created_at":%s,"updated_at":%s,'
      .. '"expires_at":%s,%s', number, created, updated, expires, facts))
    redis.call('HSET', bodies, field, ARGV[at + 11])
    if count == 13 then
      redis.call('HSET', bodies, field .. '\0', ARGV[at + 12])
    elseif old then
      redis.call('HDEL', bodies, field .. '\0')
    end
  end,
  -- Remove a document, or without a name all of a collection.
  drop = function(count)
    local prefix = ARGV[at + 4]
    local names = count == 6 and {ARGV[at + 5]} or names_in(key(1), prefix)
    for _, name in ipairs(names) do remove(key(0), key(1), key(2), key(3), prefix, name) end
  end,
  -- Copy one key to another.
  twin = function() redis.call('COPY', key(0), key(1)) end,
  -- Put what seven keys hold in the place of seven others, and what these held away.
  adopt = function()
    for i = 0, 6 do
      if redis.call('EXISTS', key(i)) == 1 then
        redis.call('RENAME', key(i), key(i + 7))
      else
        redis.call('UNLINK', key(i + 7))
      end
    end
  end,
  -- Set these keys of a tier, and no others: pairs of name and value.
  exactly = function(count)
    local kept = {['']=true}
    redis.call('HSET', key(0), '', '')
    for i = at + 1, at + count - 1, 2 do
      kept[ARGV[i]] = true
      redis.call('HSET', key(0), ARGV[i], ARGV[i + 1])
    end
    for _, name in ipairs(redis.call('HKEYS', key(0))) do
      if not kept[name] then redis.call('HDEL', key(0), name) end
    end
  end,
  -- Copy what a session owns, as of an event: seven keys to seven others.
  copy = function()
    local upto = tonumber(ARGV[at + 14])
    if not copy_first(key(0), key(2), key(7), key(8), key(9), upto) then
      for i = 0, 2 do redis.call('COPY', key(i), key(i + 7)) end
      cut(key(7), key(8), key(9), upto)
    end
    for i = 3, 6 do redis.call('COPY', key(i), key(i + 7)) end
    for _, field in ipairs(redis.call('ZRANGE', key(11), 1, -1)) do
      local facts = redis.call('HGET', key(10), field)
      if tonumber(string.match(facts, '"seq":(%d+)')) > upto then
        local prefix, name = string.match(field, '^([^:]*:)(.*)$')
        remove(key(10), key(11), key(12), key(13), prefix, name)
      end
    end
  end,
  -- Note when the first document of an owner expires, if one does: its facts, and owners by that.
  expiring = function()
    local soonest
    for _, facts in ipairs(redis.call('HGETALL', key(0))) do -- and names, which say no such thing
      local ends = tonumber(string.match(facts, '^{"number":.-"expires_at":(%-?%d+)'))
      if ends and (not soonest or ends < soonest) then soonest = ends end
    end
    if soonest then
      redis.call('ZADD', key(1), 'LT', string.format('%.0f', soonest), ARGV[at + 2])
    end
  end,
  -- Remove the note if it says this.
  strike = function()
    if redis.call('GET', key(0)) == ARGV[at + 1] then redis.call('UNLINK', key(0)) end
  end,
  -- Remove what was delivered from the outbox, up to a number, but for the last so many.
  swept = function()
    local delivered, keep = ARGV[at + 2], tonumber(ARGV[at + 3])
    local before = redis.call('HGET', key(1), 'delivered')
    if not before or tonumber(before) < tonumber(delivered) then
      redis.call('HSET', key(1), 'delivered', delivered)
    end
    while redis.call('LLEN', key(0)) > keep do
      local errand = redis.call('LINDEX', key(0), 0)
      local number, route = string.match(errand, '^{"n":(%d+),"to":(%d+)')
      if tonumber(number) > tonumber(delivered) then return end
      redis.call('HSET', key(1), 'floor:' .. route, number)
      redis.call('LPOP', key(0))
    end
  end,
  -- Note what is to be done in another route, under the next number.
  outbox = function()
    local number = math.max(tonumber(redis.call('HGET', key(1), 'last') or '0') + 1, now())
    redis.call('HSET', key(1), 'last', string.format('%.0f', number))
    redis.call('RPUSH', key(0), string.format('{"n":%.0f,%s', number, ARGV[at + 2]))
  end,
}

local function each(act)
  local count = tonumber(ARGV[at])
  at = at + 1
  for number = 1, count do
    local name, size = ARGV[at], tonumber(ARGV[at + 1])
    at = at + 2
    if not act(name, size) then return number end
    at = at + size
  end
  return 0
end

local failed = each(function(name, size) return checks[name](size) end)
if failed > 0 then return failed end
each(function(name, size)
  local command = commands[name]
  if command then
    command(size)
  elseif size == 1 then
    redis.call(name, key(0))
  else
    redis.call(name, key(0), unpack(ARGV, at + 1, at + size - 1))
  end
  return true
end)
for log, count in pairs(emptied) do redis.call('LTRIM', log, count, -1) end
return 0
