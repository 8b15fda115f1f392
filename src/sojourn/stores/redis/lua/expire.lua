-- Remove the documents of an owner that have expired, and note when the next one will: of an owner
-- with many some at a time, so that others are answered in between.
--
-- KEYS: facts, keys in order, places in order, bodies, owners by the first deadline. ARGV: the
-- owner, now, how many documents to look at, the last one that was looked at (empty at first), the
-- first deadline of those that stay (empty for none), and when all begins anew if it is not gone on
-- with. Returns what the next call takes as the last one looked at and as the first deadline;
-- nothing once all were looked at.
--
-- Between the first look and the last, an owner stands far behind every deadline, so that a document
-- that is put meanwhile brings it forward, wherever the looks are by then. Behind a zero byte it
-- stands for once more, and comes back if nobody goes on.

local docs, dockeys, docplaces, bodies, docdue = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner, instant, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local from, soonest, again = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local returning, far = '\0' .. owner, '9007199254740991'

redis.call('HDEL', docs, '') -- nothing, which a full server takes: see `make_room`
local found = redis.call('ZRANGEBYLEX', dockeys, '(' .. from, '+', 'LIMIT', 0, most)
for _, field in ipairs(found) do
  local facts = redis.call('HGET', docs, field)
  local ends = facts and tonumber(string.match(facts, '"expires_at":(%-?%d+)'))
  if ends and ends <= instant then
    local prefix, name = string.match(field, '^([^:]*:)(.*)$')
    remove(docs, dockeys, docplaces, bodies, prefix, name)
  elseif ends and (not soonest or ends < soonest) then
    soonest = ends
  end
end
local deadline = soonest and string.format('%.0f', soonest)
if #found == most then
  if from == '' then redis.call('ZADD', docdue, far, owner, again, returning) end
  return {found[most], deadline or ''}
end

-- Whether the owner stands where it was put with the first look, and nothing was put meanwhile.
local function is_far()
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', docdue, far, far)) do
    if other == owner then return true end
  end
  return false
end

if redis.call('EXISTS', dockeys) == 0 then deadline = nil end -- they went with their session
if not deadline and (from == '' or is_far()) then
  redis.call('ZREM', docdue, owner, returning) -- at once: this may empty it
  return {}
end
if deadline and from == '' then
  redis.call('ZADD', docdue, deadline, owner)
elseif deadline then
  redis.call('ZADD', docdue, 'LT', deadline, owner)
end
redis.call('ZREM', docdue, returning)
return {}
