-- A page of the documents of one collection.
--
-- KEYS: facts, keys in order, places in order, bodies. ARGV: `keys` or `places`, the prefix of the
-- collection, the bound (empty for none), how many, and how many bytes of each body.
-- Returns key, facts and the beginning of the body in turns; keys rise, places fall.

local by_key, prefix, bound = ARGV[1] == 'keys', ARGV[2], ARGV[3]
local most, lead = ARGV[4], tonumber(ARGV[5])
local last = '(' .. string.sub(prefix, 1, -2) .. ';' -- what comes behind a colon
local found
if by_key then
  local from = bound == '' and '[' .. prefix or '(' .. prefix .. bound
  found = redis.call('ZRANGEBYLEX', KEYS[2], from, last, 'LIMIT', 0, most)
else
  local from = bound == '' and last or '(' .. prefix .. bound
  found = redis.call('ZREVRANGEBYLEX', KEYS[3], from, '[' .. prefix, 'LIMIT', 0, most)
end
local page = {}
for _, member in ipairs(found) do
  local name = string.sub(member, #prefix + (by_key and 1 or 18))
  local field = prefix .. name
  local body = ''
  if lead > 0 then
    body = redis.call('HGET', KEYS[4], field) or ''
    if #body < lead then body = body .. (redis.call('HGET', KEYS[4], field .. '\0') or '') end
    body = string.sub(body, 1, lead)
  end
  page[#page + 1] = name
  page[#page + 1] = redis.call('HGET', KEYS[1], field)
  page[#page + 1] = body
end
return page
