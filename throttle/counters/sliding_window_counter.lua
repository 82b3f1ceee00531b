-- algorithms/sliding_window_counter.py in whole microseconds. Rule: limit, window. State: start, previous, current.
kinds.sliding_window_counter = {width = 2, size = 3, most = 1}
local sliding = kinds.sliding_window_counter

local function start_of(rule, now) return now - modulo(now, rule[2]) end

local function further(rule, start, current, windows)
  local owed = math.max(current - (windows - 1) * rule[1], 0)
  local previous = math.min(owed, rule[1])
  return start + windows * rule[2], previous, owed - previous
end

local function roll(rule, state, now)
  if now - state[1] < rule[2] then return state[1], state[2], state[3] end
  return further(rule, state[1], state[3], whole(now - state[1], rule[2]))
end

function sliding.new(rule, now) return {start_of(rule, now), 0, 0} end

function sliding.earliest(rule, state, now, cost)
  if cost == 0 then return now end
  local start, previous, current = roll(rule, state, now)
  local room = rule[1] - cost - current
  if room < 0 then
    start, previous, current = further(rule, start, current, ceiling(-room, rule[1]))
    room = rule[1] - cost - current
  end
  if previous > room then start = start + rule[2] - whole(room * rule[2], previous) end
  return math.max(start, now)
end

function sliding.book(rule, state, at, cost)
  local start, previous, current = roll(rule, state, at)
  return {start, previous, current + cost}
end

function sliding.give(rule, state, now, amount)
  local start, previous, current = roll(rule, state, now)
  local back = math.min(amount, current)
  return {start, math.max(previous - (amount - back), 0), current - back}
end

function sliding.remaining(rule, state, now)
  local start, previous, current = roll(rule, state, now)
  if start > now then return 0 end
  local weighted = ceiling(previous * (rule[2] - (now - start)), rule[2])
  return math.max(rule[1] - current - weighted, 0)
end

function sliding.full_at(rule, state, now)
  local start, previous, current = roll(rule, state, now)
  local windows = current > 0 and 1 + ceiling(current, rule[1]) or (previous > 0 and 1 or 0)
  return math.max(now, start + windows * rule[2])
end

function sliding.carry(rule, state, now, old)
  local start, previous, current = roll(old, state, now)
  if rule[2] == old[2] then return {start, previous, current} end
  local inside = math.min(math.max(rule[2] - (now - start), 0), old[2])
  return {start_of(rule, math.max(start, now)), 0, current + ceiling(previous * inside, old[2])}
end

function sliding.later(one, other, rule, now)
  local at = math.max(now, one[1], other[1])
  local _, previous, current = roll(rule, one, at)
  local _, others, currents = roll(rule, other, at)
  return current > currents or (current == currents and previous > others)
end
