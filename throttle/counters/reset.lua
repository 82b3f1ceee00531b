-- As new, counts and pauses. KEYS: what concerns every key of the name, then record and log of each key to reset.
-- ARGV: 1 where that is every key there is. What is left is a version, greater than any that anybody may remember. The
-- answer: of each key, 1 where it was used.
local time = redis.call('TIME')
local version, ttl = time[1] * 1000000 + time[2], 86400000

local function look(key)
  local found, rest = string.match(redis.call('GET', key) or '', '^(%S+) %S+(.*)')
  version = math.max(version, (tonumber(found) or 0) + 1)
  ttl = math.max(ttl, redis.call('PTTL', key))
  return (rest or '') ~= '' and 1 or 0
end

local used = {}
for index = 2, #KEYS, 2 do used[#used + 1] = look(KEYS[index]) end
local every = ARGV[1] == '1'
if every then look(KEYS[1]) end
local mark, life = string.format('%.0f 0', version), string.format('%.0f', ttl)
for index = 2, #KEYS, 2 do
  if every then redis.call('DEL', KEYS[index]) else redis.call('SET', KEYS[index], mark, 'PX', life) end
  redis.call('DEL', KEYS[index + 1])
end
if every then redis.call('SET', KEYS[1], mark, 'PX', life) end
return used
