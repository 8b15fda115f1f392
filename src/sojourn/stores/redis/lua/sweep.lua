-- What a route has of an app that is due.
--
-- KEYS: sessions by the time they are due, owners of documents by when one expires, restores by
-- when they are abandoned, the outbox, its numbers. ARGV: now, how many of each.
-- Returns members and times of sessions, owners, ids of restores, and whether errands wait.

local now, most = ARGV[1], ARGV[2]

local function past(key, ...) return redis.call('ZRANGEBYSCORE', key, '-inf', now, ...) end

local newest = redis.call('LINDEX', KEYS[4], -1)
local waits = 0
if newest then
  local number = tonumber(string.match(newest, '^{"n":(%d+)'))
  if number > tonumber(redis.call('HGET', KEYS[5], 'delivered') or '0') then waits = 1 end
end
return {
  past(KEYS[1], 'WITHSCORES', 'LIMIT', 0, most),
  past(KEYS[2], 'LIMIT', 0, most),
  past(KEYS[3], 'LIMIT', 0, most),
  waits,
}
