-- What scripts do: tables, strings, closures, sorting, floats, method calls.
local size = ...

local function sieve(limit)
  local composite, count = {}, 0
  for i = 2, limit do
    if not composite[i] then
      count = count + 1
      for j = i * i, limit, i do composite[j] = true end
    end
  end
  return count
end

local Account = {}
Account.__index = Account
function Account.new(balance) return setmetatable({balance = balance, log = {}}, Account) end
function Account:move(amount)
  self.balance = self.balance + amount
  self.log[#self.log + 1] = amount
end

local function accounts(moves)
  local account = Account.new(100)
  for i = 1, moves do account:move(i % 17 - 8) end
  return account.balance + #account.log
end

local function words(rounds)
  local counts = {}
  for i = 1, rounds do
    local line = string.format("the %d quick foxes jump over %x lazy dogs", i, i * 7)
    for word in line:gmatch("%a+") do counts[word] = (counts[word] or 0) + 1 end
    line = line:gsub("o", "0"):upper()
    counts[line:sub(5, 9)] = #line
  end
  local keys = {}
  for key in pairs(counts) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] < counts[b] end
    return a < b
  end)
  return #keys .. keys[1] .. keys[#keys]
end

local function orbit(steps)
  local x, y, vx, vy = 1.0, 0.0, 0.0, 1.0
  for _ = 1, steps do
    local distance = (x * x + y * y) ^ 1.5
    vx, vy = vx - 0.001 * x / distance, vy - 0.001 * y / distance
    x, y = x + 0.001 * vx, y + 0.001 * vy
  end
  return string.format("%.6f %.6f", x, y)
end

local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end

return table.concat({
  sieve(size * 400), accounts(size * 300), words(size * 8), orbit(size * 300), fib(12 + size // 10),
}, " ")
