-- A tier, and the number up to which another route's errands were done here.
--
-- KEYS: the tier, the marks. ARGV: the field of the mark.

return {redis.call('HGETALL', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[1])}
