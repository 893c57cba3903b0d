-- One call of a deployment, out of what its provider allows a minute in calls and in tokens: shared by all routers, by the lanes, and,
-- when it is short, by the teams of a lane as their weights say.
--
-- All amounts are milliseconds of the minute: a call takes 60000 / rpm out of one bucket, each of its tokens 60000 / tpm out of the
-- other, and a millisecond gives one back to both. A bucket is one timestamp: when it will be full (GCRA).
--
-- Lanes. Batch may use what is left above the quarter that is kept for interactive, or else its tenth; interactive may use everything
-- but what batch has left of that tenth. While interactive waits, batch has its tenth alone. What batch waits for may be more than a
-- tenth of a minute: the tenth then fills until it is enough.
--
-- Teams: fair queueing by start tags (SFQ). A team's tag is what it was charged over its weight. It takes what is there beyond the
-- claims of those who wait with a smaller tag: each as much as it waits for, and no more than it may take before the tags are even.
-- So nothing is left lying, who waits for much gathers it at the pace of its share, and who went away costs little. Who comes from
-- idling starts at the tag of the last who was served. While nobody waits no tag is kept.
--
-- Those of a team who wait are told one turn after another; who comes new takes only what is there beyond what is for them.
--
-- KEYS[1]: buckets and lanes. KEYS[2]: this lane's teams who wait, by tag; beside it, `<KEYS[2]>:<team>`, what is known of each team
--   that was short within a minute: tag, until when it claims, weight, what it waits for, its last turn, whether it waits.
-- ARGV: calls a minute or 0, tokens a minute or 0, tokens, batch (1 or 0), team, weight, ms that the caller waits at most,
--   asked before (1 or 0).
-- Gives {ms to wait (0: charged), ms until nothing is in use}.
local MINUTE = 60000
-- What floating point makes of nothing.
local NOTHING = 0.01
-- A claim ends so long after its time; who waits in its place comes up to 50 ms late, who was put off or refused up to 10 s.
local GRACE, SENT_AWAY = 1000, 10000
-- Batch hears of no longer wait: it comes back, so that its claim stays alive.
local LONGEST_BATCH = 40000
-- Left to those who have a turn, besides one call, by who comes new; and so much beyond what all wait for is plenty.
local SPARE, PLENTY = 100, 1000
-- Teams before one's own that are looked at.
local MOST = 8
local max, min = math.max, math.min
local batch = ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local known = redis.call('HMGET', KEYS[1], 'calls', 'calls:b', 'tokens', 'tokens:b', 'hold', 'short', 'short:b')
-- Until when each lane is short.
local short = (tonumber(known[batch and 7 or 6] or 0)) + GRACE > now
local interactive_waits = batch and (tonumber(known[6] or 0)) + GRACE > now
-- Until when batch waits, and for how much of each bucket.
local hold, held = known[5], {0, 0}
if hold then
  local ends, calls, tokens = string.match(hold, '(%S+) (%S+) (%S+)')
  hold = tonumber(ends) > now and tonumber(ends)
  held = hold and {tonumber(calls), tonumber(tokens)} or held
end

local buckets, cost = {}, 0
for i = 1, 2 do
  local limit = tonumber(ARGV[i])
  if limit > 0 then
    local one = MINUTE / limit
    local b = {i = i, cost = i == 1 and one or one * ARGV[3], reserve = 0, tenth = 0, most = 0}
    if limit > 1 then
      -- As with places: at least one for each lane, where there are two.
      b.reserve, b.tenth = max(one, MINUTE / 4), max(one, MINUTE / 10)
      b.most = max(b.tenth, min(held[i], MINUTE - b.reserve))
    end
    b.full = max(tonumber(known[2 * i - 1] or 0), now)
    b.left = now + MINUTE - b.full
    b.full_tenth = max(tonumber(known[2 * i] or 0), now - 10 * (b.most - b.tenth))
    b.left_of_tenth = b.tenth - (b.full_tenth - now) / 10
    buckets[#buckets + 1], cost = b, max(cost, b.cost)
  end
end

-- Ms until there are the cost and `more` for this lane. Who needs more than there ever is waits until a bucket is full.
local function wait(more)
  local ms = 0
  for _, b in ipairs(buckets) do
    local need, own = b.cost + more, nil
    if not batch then
      local others = max(b.left_of_tenth, 0)
      own = min(need, MINUTE - max(others, b.tenth)) + others - b.left
      -- While batch's tenth fills, a tenth of what comes is not for interactive.
      own = b.left_of_tenth < b.most and own / 0.9 or own
    else
      local shared = min(need + b.reserve, MINUTE) - b.left
      own = max(min(need, MINUTE) - b.left, (min(need, MINUTE - b.reserve) - b.left_of_tenth) * 10)
      own = b.tenth == 0 and shared or interactive_waits and own or min(shared, own)
    end
    ms = max(ms, own)
  end
  return ms
end

local written = {}
local function write(name, value)
  written[#written + 1], written[#written + 2] = name, value
end

local function save()
  local ms = 0
  for _, b in ipairs(buckets) do
    ms = max(ms, b.full - now)
  end
  ms = math.ceil(ms)
  redis.call('HSET', KEYS[1], unpack(written))
  redis.call('PEXPIRE', KEYS[1], max(ms + 1000, 2 * MINUTE))
  return ms
end

local function charge()
  for _, b in ipairs(buckets) do
    local name = b.i == 1 and 'calls' or 'tokens'
    if batch and b.tenth > 0 then
      local full = b.full_tenth + 10 * b.cost
      if not interactive_waits and min(b.cost + b.reserve, MINUTE) - b.left <= NOTHING then
        -- Out of what is shared: the tenth gets empty, and has no debt.
        full = max(b.full_tenth, min(full, now + 10 * b.tenth))
      end
      write(name .. ':b', string.format('%.3f', full))
    end
    b.full = b.full + b.cost
    write(name, string.format('%.3f', b.full))
  end
end

if not short and wait(0) <= NOTHING then
  charge()
  return {0, save()}
end

local me, weight, patience = KEYS[2] .. ':' .. ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local lane = batch and 'short:b' or 'short'
local virtual = tonumber(redis.call('HGET', KEYS[1], lane .. ':tag') or 0)
local tag, claims_until, turn, waits = virtual, 0, 0, false
local record = redis.call('GET', me)
if record then
  local old, ends, last, waited = string.match(record, '(%S+) (%S+) %S+ %S+ (%S+) (%S+)')
  claims_until, turn = tonumber(ends), tonumber(last)
  waits = short and waited == '1' and claims_until + GRACE > now
  -- A minute's worth behind is the most that is made up for.
  tag = max(tonumber(old), waits and virtual - MINUTE / weight or virtual)
end

local claims, all, lapse, weights = 0, 0, 0, weight
local names = short and redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf', 'LIMIT', 0, MOST + 1) or {}
local records = #names > 0 and redis.call('MGET', unpack(names)) or {}
for i, name in ipairs(names) do
  if name ~= me then
    local its, ends, its_weight, its_cost = string.match(records[i] or '', '(%S+) (%S+) (%S+) (%S+)')
    ends = tonumber(ends or 0) + GRACE
    if ends <= now then
      redis.call('ZREM', KEYS[2], name)
    else
      its, its_weight, its_cost = tonumber(its), tonumber(its_weight), tonumber(its_cost)
      weights, all = weights + its_weight, all + its_cost
      if its < tag then
        claims, lapse = claims + min(its_cost, (tag - its) * its_weight), max(lapse, ends - now)
      end
    end
  end
end
if not short then
  redis.call('DEL', KEYS[2])
end

local function note_team()
  local form = '%.15g %.0f %.9g %.3f %.0f %d'
  local text = string.format(form, tag, claims_until, weight, cost, turn, waits and 1 or 0)
  redis.call('SET', me, text, 'PX', math.ceil(max(claims_until - now, 0)) + MINUTE)
  if waits then
    redis.call('ZADD', KEYS[2], string.format('%.15g', tag), me)
    redis.call('PEXPIRE', KEYS[2], 2 * MINUTE)
  else
    redis.call('ZREM', KEYS[2], me)
  end
end

local behind = ARGV[8] == '0' and turn + SPARE > now
local ms = wait(claims)
if wait(all + PLENTY) <= NOTHING then
  -- There is enough for all who wait: no tag is moved.
  charge()
  return {0, save()}
end
if ms <= NOTHING and not (behind and wait(claims + cost + SPARE) > NOTHING) then
  charge()
  write(lane .. ':tag', string.format('%.15g', max(virtual, tag)))
  tag, waits = tag + cost / weight, waits and claims_until > now
  note_team()
  return {0, save()}
end

if claims > 0 then
  ms = min(ms, max(wait(0), lapse))
end
if behind then
  ms = max(ms, turn - now + cost * weights / weight)
end
if ms > patience then
  -- So much is gathered at the pace of the team's share.
  ms = max(ms, wait(0) * weights / weight)
end
ms = max(1, math.ceil(batch and min(ms, LONGEST_BATCH) or ms))
local ends = now + min(ms, MINUTE)
if ms <= patience then
  turn = max(turn, ends)
else
  ends = ends + SENT_AWAY
end
waits, claims_until = true, max(claims_until, ends)
note_team()
write(lane, string.format('%.0f', max(tonumber(known[batch and 7 or 6] or 0), claims_until)))
if batch then
  -- The tenth fills from now on until it is enough.
  for _, b in ipairs(buckets) do
    held[b.i] = max(held[b.i], b.cost + claims)
    write(b.i == 1 and 'calls:b' or 'tokens:b', string.format('%.3f', b.full_tenth))
  end
  write('hold', string.format('%.0f %.3f %.3f', max(hold or 0, claims_until), held[1], held[2]))
end
return {ms, save()}
