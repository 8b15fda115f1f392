-- What nearly every write does to a session, in one go: fields, events, activity, deadline, and keys
-- of its user's tier. All else is done by `apply`, more slowly.
--
-- KEYS: the session, its log, ids and kinds, the order of what is due; if there is something for a
-- tier that, the users that have one, and the apps; then orders by activity.
-- ARGV: epoch and version that the session has to have, its channel, its member in orders, when it
-- was active, when it is due (empty if that stays), the last number before the events, the bytes of
-- their kinds, how many they are, how many names and values there are for the tier; the events,
-- their ids; if there is something for a tier its user, its app, and names and values in turns;
-- then fields and values in turns.
-- Returns 0, or 1 if the session is not as it has to be.

local is = redis.call('HMGET', KEYS[1], 'epoch', 'v', 'seen')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return 1 end
local member, active, due = ARGV[4], ARGV[5], ARGV[6]
local before, count, shared = tonumber(ARGV[7]), tonumber(ARGV[9]), tonumber(ARGV[10])
local at, orders = 11 + 2 * count, 6
if shared > 0 then
  redis.call('HSET', KEYS[6], unpack(ARGV, at + 2, at + 1 + shared))
  redis.call('ZADD', KEYS[7], 0, ARGV[at])
  redis.call('SADD', KEYS[8], ARGV[at + 1])
  at, orders = at + 2 + shared, 9
end
redis.call('HSET', KEYS[1], unpack(ARGV, at))
if count > 0 then
  redis.call('RPUSH', KEYS[2], unpack(ARGV, 11, 10 + count))
  for i = 1, count do
    local id, number = ARGV[10 + count + i], string.format('%.0f', before + i)
    if redis.call('HSETNX', KEYS[3], id, number) == 0 then
      redis.call('HSET', KEYS[3], id, redis.call('HGET', KEYS[3], id) .. ',' .. number)
    end
  end
  redis.call('APPEND', KEYS[4], ARGV[8])
end
if due ~= '' then redis.call('ZADD', KEYS[5], due, member) end
for i = orders, #KEYS do redis.call('ZADD', KEYS[i], active, member) end
if is[3] then
  local time = redis.call('TIME')
  if tonumber(is[3]) > tonumber(time[1]) * 1000000 then redis.call('PUBLISH', ARGV[3], '') end
end
return 0
