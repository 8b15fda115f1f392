-- Remove a document. Arguments: its keys, the prefix of its collection, its key there.
local function remove(docs, dockeys, docplaces, bodies, prefix, name)
  local field = prefix .. name
  local facts = redis.call('HGET', docs, field)
  if not facts then return end
  local number = tonumber(string.match(facts, '^{"number":(%d+)'))
  redis.call('HDEL', docs, field)
  redis.call('ZREM', dockeys, field)
  redis.call('ZREM', docplaces, string.format('%s%016.0f:%s', prefix, number, name))
  redis.call('HDEL', bodies, field, field .. '\0')
end
