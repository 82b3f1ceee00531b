-- What every kind of limit uses: exact whole numbers, which a division of floats is not.
-- Of a kind: how many numbers its rule and its state have, and which one of the rule is the most that may come at once.
local kinds = {}

local function modulo(number, by)
  local rest = math.fmod(number, by)
  return rest < 0 and rest + by or rest
end

local function whole(number, by) return (number - modulo(number, by)) / by end

local function ceiling(number, by) return -whole(-number, by) end

