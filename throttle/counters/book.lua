-- One booking: what `book_costs` in base.py does, for states that are kept here. Every number is a whole one below 2^53.
-- KEYS, three for each limit: its state, its log (a sliding window's), what concerns every key of its name.
-- ARGV: within, ahead, limits, groups; each group: how many, cost for each limit; each limit: kind, rule, what to give
-- back, pause, pause of every key, floor.
-- A record is "version pause rule... state...". The version grows with everything that makes a state smaller (a refund,
-- a reset), so that of two records the one with the greater version counts, and of equal ones the later state. It is kept
-- for as long as anybody may remember an older one. What is left of a reset is "version 0".
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

local function record(list, kind)
  if #list ~= 2 + kind.width + kind.size then return nil end
  return {version = list[1], pause = list[2], rule = part(list, 2, kind.width), state = part(list, 2 + kind.width, kind.size)}
end

local function same(one, other)
  for index = 1, #one do if one[index] ~= other[index] then return false end end
  return true
end

local function newer(kind, one, other)
  if one.version ~= other.version then return one.version > other.version end
  local state = one.state
  if not same(one.rule, other.rule) then state = kind.carry(other.rule, state, now, one.rule) end
  return kind.later(state, other.state, other.rule, now)
end

local function load(index, place)
  local limit = {key = KEYS[3 * index - 2], log = KEYS[3 * index - 1], all = KEYS[3 * index], pause = 0}
  local kind = kinds[ARGV[place]]
  limit.kind, limit.rule, limit.version = kind, {}, 0
  for offset = 1, kind.width do limit.rule[offset] = tonumber(ARGV[place + offset]) end
  place = place + kind.width
  limit.give, limit.add, limit.add_all = tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  local all = numbers(redis.call('GET', limit.all))
  limit.since_all, limit.pause_all = all[1] or 0, all[2] or 0
  local text, told = redis.call('GET', limit.key) or '', ARGV[place + 4]
  local list, since, best, lost = numbers(text), limit.since_all, nil, false
  if #list == 2 then since = math.max(since, list[1]) end
  local kept = record(list, kind)
  if kept and kept.version >= since then best = kept end
  local floor = told ~= text and record(numbers(told), kind)
  if floor and floor.version >= since and (not best or newer(kind, floor, best)) then
    if best then floor.pause = math.max(floor.pause, best.pause) end
    if best and kind.join then kind.join(floor.state, best.state) end
    best, lost, limit.restored = floor, true, true
  end
  if best then
    limit.version, limit.pause, limit.state = best.version, best.pause, best.state
  else
    limit.version, limit.state, lost = since, kind.new(limit.rule, now), true
  end
  if kind.open then kind.open(limit.state, limit.log, lost, now) end
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
    local ttl = math.max(math.ceil((limit.pause_all - now) / 1000) + 86400000, redis.call('PTTL', limit.all))
    redis.call('SET', limit.all, string.format('%.0f %.0f', limit.since_all, limit.pause_all), 'PX', string.format('%.0f', ttl))
  end
  start = math.max(start, limit.pause, limit.pause_all)
end

local function due_at(at, units)
  local due = at
  for index, limit in ipairs(all) do due = math.max(due, limit.kind.earliest(limit.rule, limit.state, at, units[index])) end
  return due
end

local function book(at, units)
  for index, limit in ipairs(all) do
    if units[index] > 0 then
      limit.state, limit.booked = limit.kind.book(limit.rule, limit.state, at, units[index]), true
    end
  end
end

-- Whether so many of these costs may come at once, now; then they are booked as one, which leaves the same state.
local function together(count, units)
  local sums = {}
  for index, limit in ipairs(all) do
    sums[index] = count * units[index]
    if sums[index] > limit.rule[limit.kind.most] then return false end
  end
  if due_at(now, sums) > now then return false end
  book(now, sums)
  return true
end

local at, zeros, rest, first, wait = start, 0, {}, nil, 0
for _, group in ipairs(costs) do
  local count, units = group[1], group[2]
  if at == now and count > 1 and (within or 0) >= 0 and together(count, units) then
    first, zeros, count = first or 0, zeros + count, 0
  end
  for _ = 1, count do
    local due = due_at(at, units)
    wait = due - now
    if (within and wait > within) or (ahead and first and wait >= first + ahead) then break end
    at, first = due, first or wait
    book(at, units)
    if wait == 0 then zeros = zeros + 1 else rest[#rest + 1] = string.format('%.0f', wait) end
    wait = 0
  end
  if wait > 0 then break end
end

local answer = {zeros, table.concat(rest, ' '), string.format('%.0f', wait)}
for index, limit in ipairs(all) do
  local full_at = limit.kind.full_at(limit.rule, limit.state, now)
  local remaining = limit.kind.remaining(limit.rule, limit.state, now)
  local kept = ''
  if limit.booked or limit.restored or limit.give ~= 0 or limit.add > 0 then
    local texts = {string.format('%.0f %.0f', limit.version, limit.pause)}
    for _, number in ipairs(limit.rule) do texts[#texts + 1] = string.format('%.0f', number) end
    for offset = 1, limit.kind.size do texts[#texts + 1] = string.format('%.0f', limit.state[offset]) end
    kept = table.concat(texts, ' ')
    local ttl = math.ceil((math.max(full_at, limit.pause) - now) / 1000) + 60000
    if limit.version > 0 then ttl = math.max(ttl, redis.call('PTTL', limit.key)) end
    ttl = string.format('%.0f', ttl)
    redis.call('SET', limit.key, kept, 'PX', ttl)
    if limit.kind.save then limit.kind.save(limit.state, ttl) end
  end
  answer[#answer + 1] = string.format('%.0f %.0f %.0f', remaining, full_at - now,
    math.max(0, math.max(limit.pause, limit.pause_all) - now))
  answer[#answer + 1] = limit.booked and kept or ''
end
return answer
