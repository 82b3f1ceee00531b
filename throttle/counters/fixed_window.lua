-- algorithms/fixed_window.py in whole microseconds. Rule: limit, window, offset. State: start of the window, count.
kinds.fixed_window = {width = 3, size = 2, most = 1}
local fixed = kinds.fixed_window

local function start_of(rule, now) return now - modulo(now - rule[3], rule[2]) end

local function roll(rule, state, now)
  if now - state[1] < rule[2] then return state[1], state[2] end
  local passed = whole(now - state[1], rule[2])
  return state[1] + passed * rule[2], math.max(state[2] - passed * rule[1], 0)
end

function fixed.new(rule, now) return {start_of(rule, now), 0} end

function fixed.earliest(rule, state, now, cost)
  local start, count = roll(rule, state, now)
  local over = count + cost - rule[1]
  local due = over <= 0 and start or start + ceiling(over, rule[1]) * rule[2]
  return (due > now and cost > 0) and due or now
end

function fixed.book(rule, state, at, cost)
  local start, count = roll(rule, state, at)
  return {start, count + cost}
end

function fixed.give(rule, state, now, amount)
  local start, count = roll(rule, state, now)
  return {start, count - math.min(amount, count)}
end

function fixed.remaining(rule, state, now)
  local start, count = roll(rule, state, now)
  return start <= now and math.max(rule[1] - count, 0) or 0
end

function fixed.full_at(rule, state, now)
  local start, count = roll(rule, state, now)
  return math.max(now, start + ceiling(count, rule[1]) * rule[2])
end

function fixed.carry(rule, state, now, old)
  local start, count = roll(old, state, now)
  return {start_of(rule, math.max(start, now)), count}
end

function fixed.later(one, other, rule, now)
  local at = math.max(now, one[1], other[1])
  local _, count = roll(rule, one, at)
  local _, others = roll(rule, other, at)
  return count > others
end
