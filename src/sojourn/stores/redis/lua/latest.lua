-- A session as of one moment: what is kept of it, its user's tier, the app's, its last events. All
-- other windows are read by `read`, more slowly.
--
-- KEYS: as of `read`. ARGV: how many events, then the names of fields.
-- Returns what `read` does.

local session, last = KEYS[1], tonumber(ARGV[1])
local own, shared, outbox = KEYS[4], KEYS[5], KEYS[6]
return {
  redis.call('HMGET', session, unpack(ARGV, 2)),
  own ~= session and redis.call('HGETALL', own) or {},
  shared ~= session and redis.call('HGETALL', shared) or {},
  outbox ~= session and redis.call('LRANGE', outbox, 0, -1) or {},
  outbox ~= session and redis.call('HGETALL', KEYS[7]) or {},
  last > 0 and redis.call('LRANGE', KEYS[2], -last, -1) or {},
}
