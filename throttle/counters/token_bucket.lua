-- algorithms/token_bucket.py in whole microseconds. Rule: permits, ticks, depth (in units; a permit is `ticks` units,
-- a microsecond refills `permits` of them). State: at, rest = the instant at which it is full again, rest/permits after.
kinds.token_bucket = {width = 3, size = 2, most = 3}
local bucket = kinds.token_bucket

function bucket.new() return {0, 0} end

local function debt(rule, state, now) return (state[1] - now) * rule[1] + state[2] end

local function at_debt(rule, now, units)
  local rest = modulo(units, rule[1])
  return {now + (units - rest) / rule[1], rest}
end

function bucket.earliest(rule, state, now, units)
  local over = debt(rule, state, now) + units - rule[3]
  if over <= 0 or units == 0 then return now end
  return now + ceiling(over, rule[1])
end

function bucket.book(rule, state, at, units)
  return at_debt(rule, at, math.max(debt(rule, state, at), 0) + units)
end

function bucket.give(rule, state, now, units)
  if debt(rule, state, now) <= 0 then return state end
  return at_debt(rule, now, debt(rule, state, now) - units)
end

function bucket.remaining(rule, state, now)
  return math.max(rule[3] - math.max(debt(rule, state, now), 0), 0)
end

function bucket.full_at(rule, state, now)
  return math.max(now, state[2] > 0 and state[1] + 1 or state[1])
end

function bucket.carry(rule, state, now, old)
  local units = math.max(debt(old, state, now), 0)
  return at_debt(rule, now, math.ceil(units * rule[2] / old[2]))
end

function bucket.later(one, other) return one[1] > other[1] or (one[1] == other[1] and one[2] > other[2]) end
