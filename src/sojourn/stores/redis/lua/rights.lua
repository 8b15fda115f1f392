-- Which commands the user may not run, on keys and channels of the store. Nothing is run.
--
-- ARGV: a key, a channel. Returns the names of commands; of none where a server can not tell, as
-- before Redis 7.

local missing = {}
if not redis.acl_check_cmd then return missing end
local places = {KEY = ARGV[1], CHANNEL = ARGV[2]}
local needed = {
  'get KEY', 'set KEY v', 'unlink KEY', 'copy KEY KEY', 'rename KEY KEY', 'exists KEY', 'time',
  'hget KEY f', 'hmget KEY f', 'hgetall KEY', 'hset KEY f v', 'hsetnx KEY f v', 'hdel KEY f',
  'hincrby KEY f 1', 'hkeys KEY', 'hstrlen KEY f', 'lindex KEY 0', 'llen KEY', 'lrange KEY 0 0',
  'lpop KEY', 'rpush KEY v', 'ltrim KEY 0 0', 'sadd KEY v', 'smembers KEY', 'zadd KEY 0 v',
  'zrem KEY v', 'zcard KEY', 'zcount KEY 0 0', 'zrange KEY 0 0', 'zrevrange KEY 0 0',
  'zrangebyscore KEY 0 0', 'zrangebylex KEY - +', 'zrevrangebylex KEY + -', 'append KEY v',
  'getrange KEY 0 0', 'pexpire KEY 1', 'scan 0', 'publish CHANNEL v', 'subscribe CHANNEL',
  'unsubscribe CHANNEL',
}
for _, line in ipairs(needed) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = places[word] or word end
  if not redis.acl_check_cmd(unpack(words)) then missing[#missing + 1] = words[1] end
end
return missing
