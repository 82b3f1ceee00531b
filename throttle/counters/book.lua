-- One booking: what `book_costs` in base.py does, for states that are kept here. Every number is a whole one below 2^53.
-- KEYS, three for each limit: its state, its log (a sliding window's), what concerns every key of its name.
-- ARGV: within, ahead, limits, groups; each group: how many, cost for each limit; each limit: kind, rule, what to give
-- back, pause, pause of every key, floor.
-- A record is "version pause rule... state...". The version grows with everything that makes a state smaller (a refund,
-- a reset), so that of two records the one with the greater version counts, and of equal ones the later state.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local within, ahead, limits, groups = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function numbers(text)
  local found = {}
  for number in string.gmatch(text or '', '%S+') do found[#found + 1] = tonumber(number) end
  return found
end

local function part(list, from, size)
  local found = {}
  for index = 1, size do found[index] = list[from + index] end
  return found
end

local function record(text, kind)
  local list = numbers(text)
  if #list ~= 2 + kind.width + kind.size then return nil end
  return {version = list[1], pause = list[2], rule = part(list, 2, kind.width), state = part(list, 2 + kind.width, kind.size)}
end

local function same(one, other)
  for index = 1, #one do if one[index] ~= other[index] then return false end end
  return true
end

local function load(index, place)
  local limit = {key = KEYS[3 * index - 2], log = KEYS[3 * index - 1], all = KEYS[3 * index], pause = 0}
  local kind = kinds[ARGV[place]]
  limit.kind, limit.rule, limit.version = kind, {}, 0
  for offset = 1, kind.width do limit.rule[offset] = tonumber(ARGV[place + offset]) end
  place = place + kind.width
  limit.give, limit.add, limit.add_all = tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  local all = numbers(redis.call('GET', limit.all))
  limit.since, limit.pause_all = all[1] or 0, all[2] or 0
  local kept, floor, lost = record(redis.call('GET', limit.key), kind), record(ARGV[place + 4], kind), false
  if kept and kept.version < limit.since then kept = nil end
  if floor and floor.version < limit.since then floor = nil end
  local best = kept
  if floor and (not kept or floor.version > kept.version or
      (floor.version == kept.version and kind.later(floor.state, kept.state))) then
    best, lost, limit.restored = floor, true, true
    if kept then best.pause = math.max(best.pause, kept.pause) end
  end
  if best then
    limit.version, limit.pause, limit.state = best.version, best.pause, best.state
  else
    limit.version, limit.state, lost = limit.since, kind.new(limit.rule, now), true
  end
  if kind.open then kind.open(limit.state, limit.log, lost) end
  if best and not same(best.rule, limit.rule) then limit.state = kind.carry(limit.rule, limit.state, now, best.rule) end
  return limit, place + 5
end

local place, costs = 5, {}
for group = 1, groups do
  costs[group] = {tonumber(ARGV[place]), part(ARGV, place, limits)}
  for index = 1, limits do costs[group][2][index] = tonumber(costs[group][2][index]) end
  place = place + 1 + limits
end

local all, start = {}, now
for index = 1, limits do
  local limit
  limit, place = load(index, place)
  all[index] = limit
  if limit.give > 0 then
    limit.state = limit.kind.give(limit.rule, limit.state, now, limit.give)
    limit.version = math.max(limit.version + 1, now)
  elseif limit.give < 0 then
    limit.state = limit.kind.book(limit.rule, limit.state, now, -limit.give)
  end
  if limit.add > 0 then limit.pause = math.max(limit.pause, now + limit.add) end
  if limit.add_all > 0 then
    limit.pause_all = math.max(limit.pause_all, now + limit.add_all)
    redis.call('SET', limit.all, string.format('%.0f %.0f', limit.since, limit.pause_all),
      'PX', string.format('%.0f', math.ceil((limit.pause_all - now) / 1000) + 86400000))
  end
  start = math.max(start, limit.pause, limit.pause_all)
end

local at, zeros, rest, first, wait = start, 0, {}, nil, 0
for _, group in ipairs(costs) do
  for _ = 1, group[1] do
    local due = at
    for index, limit in ipairs(all) do
      due = math.max(due, limit.kind.earliest(limit.rule, limit.state, at, group[2][index]))
    end
    wait = due - now
    if (within and wait > within) or (ahead and first and wait >= first + ahead) then break end
    at, first = due, first or wait
    for index, limit in ipairs(all) do
      limit.state = limit.kind.book(limit.rule, limit.state, at, group[2][index])
    end
    if wait == 0 then zeros = zeros + 1 else rest[#rest + 1] = string.format('%.0f', wait) end
    wait = 0
  end
  if wait > 0 then break end
end

local booked = zeros + #rest > 0
local answer = {zeros, table.concat(rest, ' '), string.format('%.0f', wait)}
for index, limit in ipairs(all) do
  local full_at = limit.kind.full_at(limit.rule, limit.state, now)
  local remaining = limit.kind.remaining(limit.rule, limit.state, now)
  local kept = ''
  if booked or limit.restored or limit.give ~= 0 or limit.add > 0 then
    local texts = {string.format('%.0f %.0f', limit.version, limit.pause)}
    for _, number in ipairs(limit.rule) do texts[#texts + 1] = string.format('%.0f', number) end
    for offset = 1, limit.kind.size do texts[#texts + 1] = string.format('%.0f', limit.state[offset]) end
    kept = table.concat(texts, ' ')
    local ttl = string.format('%.0f', math.ceil((math.max(full_at, limit.pause) - now) / 1000) + 60000)
    redis.call('SET', limit.key, kept, 'PX', ttl)
    if limit.kind.save then limit.kind.save(limit.state, ttl) end
  end
  answer[#answer + 1] = string.format('%.0f %.0f %.0f', remaining, full_at - now,
    math.max(0, math.max(limit.pause, limit.pause_all) - now))
  answer[#answer + 1] = booked and kept or ''
end
return answer
