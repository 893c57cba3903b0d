-- Admission in one round trip: a request that was made before is found; every limit of the caller is checked and charged, or none:
-- rates, places, money; and what may be asked for later is noted. With holds.lua before it.
-- Rates are GCRAs (generic cell rate algorithm): one timestamp a limit, no reset job, no window edge to double at. Who may wait
-- (batch) is given the time at which its turn comes, and who comes after it the time after that.
-- KEYS: if there is a claim: its key; if there is a ticket: its key; if it is listed: the list. Those of the limits are in ARGV[1].
-- ARGV: the limits as JSON: [[of each rate: key, limit, period in ms, 1 if it counts tokens, …], [of each room: key, limit, …],
--   [of each counter: key, limit in nano-dollars or -1, limit in tokens or -1, unix ms at which it may be forgotten (0: never), …]];
--   longest wait in ms, job id, tokens, nano-dollars, ms of the hold's lease, what of the counters (hold | look: is anything left);
--   if anything is to be kept: claim or '', its life in ms, attaches (1 or 0), ticket or '', its life in ms, listed (1 or 0),
--   most listed, ms of acceptance.
-- Gives {1 (or 3: the money was held for this job before), ms to wait, of each rate: remaining, ms until full, …}
--   | {0, 'rate', its number, ms to wait, remaining, ms until full} | {0, 'room', its number}
--   | {0, 'usd' | 'tokens', number of the counter, spent, held} | {0, 'closed'}: the counters are not to be trusted
--   | {2, claim, sent (1 or 0), number of those who attached so far}.
local limits = cjson.decode(ARGV[1])
local rates, rooms, counters = limits[1], limits[2], limits[3]
local longest, job, tokens, nano = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lease, holds = tonumber(ARGV[6]), ARGV[7] == 'hold'
local claim, ticket = ARGV[8] or '', ARGV[11] or ''
local following = 1

local claim_key = claim ~= '' and KEYS[following]
if claim_key then
  following = following + 1
  local held = redis.call('HMGET', claim_key, 'claim', 'sent')
  if held[1] and ARGV[10] == '1' then
    return {2, held[1], tonumber(held[2] or 0), redis.call('HINCRBY', claim_key, 'attached', 1)}
  end
end

local now = milliseconds()
local arrivals, said, wait = {}, {1, 0}, 0
local known = {}
if #rates > 0 then
  local keys = {}
  for i = 1, #rates, 4 do
    keys[#keys + 1] = rates[i]
  end
  known = redis.call('MGET', unpack(keys))
end
for i = 1, #known do
  local at = 4 * i - 3
  local limit, period = rates[at + 1], rates[at + 2]
  local cost = rates[at + 3] == 1 and tokens or 1
  local interval = period / limit
  local before = math.max(tonumber(known[i] or 0), now)
  local arrival = before + cost * interval
  local own = arrival - period - now
  if own > 1e-6 then
    if own > longest then
      local left = math.max(0, math.floor((now + period - before) / interval + 1e-6))
      return {0, 'rate', i, math.ceil(own), left, math.ceil(before - now)}
    end
    wait = math.max(wait, own)
  end
  said[2 * i + 1] = math.max(0, math.floor((now + period - arrival) / interval + 1e-6))
  said[2 * i + 2] = math.ceil(arrival - now)
  arrivals[i] = arrival
end

if #counters > 0 and not redis.call('GET', 'ledger:epoch') then
  return {0, 'closed'}
end

-- What is delivered again, or tried again, holds something already: what is missing is held besides. Where it counts elsewhere
-- now, in the next period or at a new budget, all of it is held anew.
local former = holds and #counters > 0 and redis.call('HMGET', 'hold:' .. job, 'b', 'u', 't') or {}
local holds_already, moved = former[1], false
if holds_already then
  local places = {}
  for counter in each(former[1]) do
    places[counter] = true
  end
  for i = 1, #counters, 4 do
    moved = moved or not places[counters[i]]
  end
end

if moved then
  holds_already = false
  hold_at(former[1], -tonumber(former[2]), -tonumber(former[3]))
end
local more_nano = nano - (holds_already and tonumber(former[2]) or 0)
local more_tokens = tokens - (holds_already and tonumber(former[3]) or 0)
local counted = {}

local function is_full(room, limit)
  if redis.call('ZCARD', room) < limit then
    return false
  end
  redis.call('ZREMRANGEBYSCORE', room, '-inf', text(now))
  return redis.call('ZCARD', room) >= limit and not redis.call('ZSCORE', room, job)
end

local function too_much(limit, amount, spent, held)
  if limit < 0 or (holds_already and amount <= 0) then
    return false
  end
  local in_use = tonumber(spent or 0) + tonumber(held or 0)
  if holds then
    return in_use + amount > limit
  end
  return in_use >= limit
end

local function refusal()
  for i = 1, #rooms, 2 do
    if is_full(rooms[i], rooms[i + 1]) then
      return {0, 'room', (i + 1) / 2}
    end
  end
  for i = 1, #counters, 4 do
    local found = redis.call('HMGET', counters[i], 'u', 'hu', 't', 'ht')
    counted[i] = found
    if too_much(counters[i + 1], more_nano, found[1], found[2]) then
      return {0, 'usd', (i + 3) / 4, found[1] or '0', found[2] or '0'}
    end
    if too_much(counters[i + 2], more_tokens, found[3], found[4]) then
      return {0, 'tokens', (i + 3) / 4, found[3] or '0', found[4] or '0'}
    end
  end
  return nil
end

local refused = refusal()
if refused and sweep(now, 100) > 0 then
  refused = refusal()
end
if refused then
  if moved then
    hold_at(former[1], tonumber(former[2]), tonumber(former[3]))
  end
  return refused
end

local charged, held = {}, {}
for i = 1, #known do
  local at = 4 * i - 3
  redis.call('SET', rates[at], string.format('%.3f', arrivals[i]), 'PX', math.ceil(arrivals[i] - now) + 1000)
  if rates[at + 3] == 1 then
    charged[#charged + 1] = rates[at]
    charged[#charged + 1] = string.format('%.17g', rates[at + 2] / rates[at + 1])
  end
end
if #charged > 0 then
  held[1], held[2], held[3], held[4] = 'r', table.concat(charged, '\n'), 'rt', ARGV[4]
end
if #rooms > 0 then
  local taken = {}
  for i = 1, #rooms, 2 do
    taken[#taken + 1] = rooms[i]
    redis.call('ZADD', rooms[i], text(now + lease), job)
  end
  local n = #held
  held[n + 1], held[n + 2] = 'c', table.concat(taken, '\n')
end
if holds_already then
  hold_at(holds_already, more_nano, more_tokens)
  local n = #held
  held[n + 1], held[n + 2], held[n + 3], held[n + 4] = 'u', ARGV[5], 't', ARGV[4]
elseif #counters > 0 and holds then
  local at = {}
  for i = 1, #counters, 4 do
    local found, key = counted[i], counters[i]
    at[#at + 1] = key
    redis.call('HSET', key, 'hu', text(tonumber(found[2] or 0) + nano), 'ht', text(tonumber(found[4] or 0) + tokens))
    if not (found[1] or found[2]) and counters[i + 3] > 0 then
      redis.call('PEXPIREAT', key, text(counters[i + 3]))
    end
  end
  local n = #held
  held[n + 1], held[n + 2] = 'b', table.concat(at, '\n')
  held[n + 3], held[n + 4], held[n + 5], held[n + 6] = 'u', ARGV[5], 't', ARGV[4]
end
if #held > 0 then
  local hold = 'hold:' .. job
  redis.call('HSET', hold, unpack(held))
  redis.call('ZADD', 'holds', text(now + lease), job)
end

if claim_key then
  redis.call('DEL', claim_key)
  redis.call('HSET', claim_key, 'claim', claim)
  redis.call('PEXPIRE', claim_key, ARGV[9])
end
if ticket ~= '' then
  redis.call('HSET', KEYS[following], 'ticket', ticket)
  redis.call('PEXPIRE', KEYS[following], ARGV[12])
  if ARGV[13] == '1' then
    local list = KEYS[following + 1]
    redis.call('ZADD', list, ARGV[15], job)
    redis.call('ZREMRANGEBYRANK', list, 0, -tonumber(ARGV[14]) - 1)
    redis.call('PEXPIRE', list, ARGV[12])
  end
end
said[1], said[2] = holds_already and more_nano <= 0 and more_tokens <= 0 and 3 or 1, math.ceil(wait)
return said
