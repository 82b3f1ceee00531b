-- algorithms/sliding_window.py in whole microseconds. Rule: limit, window. State: since, used, last, born; the log itself
-- is a list of "instant weight", read from its old end as far as it is needed. Where it is lost, all that was used counts
-- at the last instant, and the state is born anew.
kinds.sliding_window = {width = 2, size = 4, most = 1}
local window = kinds.sliding_window

function window.new(rule, now) return {now - rule[2], 0, 0, now} end

function window.open(state, key, lost, now)
  local log = {key = key, ticks = {}, weights = {}, first = 1, read = 0, kept = lost and 0 or redis.call('LLEN', key)}
  log.size = log.kept
  log.lost = lost
  state.log = log
  if lost then state[4] = now end
  if log.kept == 0 and state[2] > 0 then window.append(state, state[3], state[2]) end
end

function window.append(state, tick, weight)
  local log = state.log
  log.size = log.size + 1
  log.ticks[log.size], log.weights[log.size] = tick, weight
end

local function entry(log, index)
  if index > log.size then return nil end
  if log.ticks[index] == nil then
    local from = log.read
    local texts = redis.call('LRANGE', log.key, from, from + 63)
    for offset, text in ipairs(texts) do
      local tick, weight = string.match(text, '(%S+) (%S+)')
      log.ticks[from + offset], log.weights[from + offset] = tonumber(tick), tonumber(weight)
    end
    log.read = from + #texts
    return entry(log, index)
  end
  return log.ticks[index], log.weights[index]
end

local function newest(log)
  if log.size < log.first then return nil end
  if log.ticks[log.size] == nil then
    local tick, weight = string.match(redis.call('LINDEX', log.key, -1), '(%S+) (%S+)')
    log.ticks[log.size], log.weights[log.size] = tonumber(tick), tonumber(weight)
  end
  return log.ticks[log.size]
end

local function drop(rule, state, horizon)
  local log = state.log
  local tick, weight = entry(log, log.first)
  while tick and tick <= horizon do
    log.first = log.first + 1
    state[2] = state[2] - weight
    state[1] = tick + rule[2]
    tick, weight = entry(log, log.first)
  end
end

function window.earliest(rule, state, now, cost)
  if cost == 0 then return now end
  now = math.max(now, state[1])
  local over = state[2] + cost - rule[1]
  if over <= 0 then return now end
  local log, last = state.log, now
  for index = log.first, log.size do
    local tick, weight = entry(log, index)
    over, last = over - weight, tick
    if over <= 0 then return math.max(tick + rule[2], now) end
  end
  return math.max(now, last) + rule[2]
end

function window.book(rule, state, at, cost)
  drop(rule, state, at - rule[2])
  local log = state.log
  local last = newest(log)
  state[2] = state[2] + cost
  if last and last >= at then
    log.weights[log.size] = log.weights[log.size] + cost
    if log.size <= log.kept then log.heavier = true end
    at = last
  else
    window.append(state, at, cost)
  end
  state[3] = at
  return state
end

function window.give(rule, state, now, amount)
  local log = state.log
  drop(rule, state, now - rule[2])
  local tick, weight = entry(log, log.first)
  while amount > 0 and tick do
    local out = math.min(amount, weight)
    amount, state[2] = amount - out, state[2] - out
    if out == weight then
      log.first = log.first + 1
    else
      log.weights[log.first] = weight - out
      log.lighter = log.first
    end
    tick, weight = entry(log, log.first)
  end
  return state
end

function window.remaining(rule, state, now)
  if now < state[1] then return 0 end
  local free, log = rule[1] - state[2], state.log
  for index = log.first, log.size do
    local tick, weight = entry(log, index)
    if tick > now - rule[2] then break end
    free = free + weight
  end
  return math.max(free, 0)
end

function window.full_at(rule, state, now)
  local last = newest(state.log)
  return math.max(now, last and last + rule[2] or state[1])
end

function window.carry(rule, state) return state end

function window.later(one, other, rule, now)
  if one[4] == other[4] then return one[3] > other[3] end
  return one[2] > other[2] and one[3] + rule[2] > now
end

function window.join(one, other) one[3] = math.max(one[3], other[3]) end

function window.save(state, ttl)
  local log = state.log
  local function text(index) return string.format('%.0f %.0f', log.ticks[index], log.weights[index]) end
  if log.lost then redis.call('DEL', log.key) end
  if log.heavier and log.first <= log.kept then redis.call('LSET', log.key, -1, text(log.kept)) end
  if log.lighter and log.lighter >= log.first and log.lighter <= log.kept then
    redis.call('LSET', log.key, log.lighter - 1, text(log.lighter))
  end
  if log.first > log.kept then
    redis.call('DEL', log.key)
  elseif log.first > 1 then
    redis.call('LTRIM', log.key, log.first - 1, -1)
  end
  for index = math.max(log.kept + 1, log.first), log.size do redis.call('RPUSH', log.key, text(index)) end
  redis.call('PEXPIRE', log.key, ttl)
end
