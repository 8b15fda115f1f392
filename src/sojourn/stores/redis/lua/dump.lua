-- A session whole, as of one moment, unless it is too large for that; or a piece of a large one.
--
-- KEYS: the session, its log, its documents' facts, their places, their bodies. ARGV: the names of
-- fields, joined by commas; how many bytes may come; the first event and the first document wanted,
-- counted from 0; `whole` or `piece`, which says whether nothing comes if not everything can.
-- Returns the fields, events, documents (place, facts, body in turns), and whether that is the rest.

local most, first_event, first_document = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local whole = ARGV[5] == 'whole'
local size, events, documents = 0, {}, {}

-- Add an item unless it is one too many; the first one always comes.
local function fits(bytes)
  size = size + bytes
  return size <= most or (not whole and #events + #documents == 0)
end

local function take_events()
  local count = redis.call('LLEN', KEYS[2])
  for from = first_event, count - 1, 50 do
    for _, entry in ipairs(redis.call('LRANGE', KEYS[2], from, from + 49)) do
      if not fits(#entry) then return false end
      events[#events + 1] = entry
    end
  end
  return true
end

local function take_documents()
  local count = redis.call('ZCARD', KEYS[4])
  for index = first_document, count - 1 do
    local place = redis.call('ZRANGE', KEYS[4], index, index)[1]
    if place ~= '' then
      local prefix, name = string.match(place, '^([^:]*:)%d+:(.*)$')
      local field = prefix .. name
      local facts = redis.call('HGET', KEYS[3], field)
      if not fits(256 + tonumber(string.match(facts, '"size":(%d+)'))) then return false end
      local parts = redis.call('HMGET', KEYS[5], field, field .. '\0')
      documents[#documents + 1] = place
      documents[#documents + 1] = facts
      documents[#documents + 1] = (parts[1] or '') .. (parts[2] or '')
    end
  end
  return true
end

local names = {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
local complete = take_events() and take_documents()
if whole and not complete then events, documents = {}, {} end
return {redis.call('HMGET', KEYS[1], unpack(names)), events, documents, complete and 1 or 0}
