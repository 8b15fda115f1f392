-- What a route has of an app that is due.
--
-- KEYS: sessions by the time they are due, owners of documents by when one expires, restores by
-- when they are abandoned; then outboxes and their numbers. ARGV: now, how many of each.
-- Returns members and times of sessions, owners, ids of restores, and for each outbox whether
-- errands wait in it.

local now, most = ARGV[1], ARGV[2]

local function past(key, ...) return redis.call('ZRANGEBYSCORE', key, '-inf', now, ...) end

local found = {
  past(KEYS[1], 'WITHSCORES', 'LIMIT', 0, most),
  past(KEYS[2], 'LIMIT', 0, most),
  past(KEYS[3], 'LIMIT', 0, most),
}
for i = 4, #KEYS, 2 do
  local newest = redis.call('LINDEX', KEYS[i], -1)
  local number = newest and tonumber(string.match(newest, '^{"n":(%d+)')) or 0
  local delivered = tonumber(redis.call('HGET', KEYS[i + 1], 'delivered') or '0')
  found[#found + 1] = number > delivered and 1 or 0
end
return found
