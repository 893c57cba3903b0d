-- What the scripts of the ledger share. Put before each of them (Script.load).
-- A counter is a hash: spent nano-dollars and tokens (u, t), and what is held of them for jobs that run (hu, ht).
-- A hold is a hash: nano-dollars and tokens (u, t) held at counters (b), tokens (rt) charged to rates (r: key, ms a token, …),
-- places taken in rooms (c). Names in a list stand on a line each. `holds` has every hold by the time at which its lease ends.
-- Money stays text where it is only handed on: Lua would write large numbers in short.

local function text(number)
  -- A negated zero would be written as -0, which Redis takes for no number.
  return string.format('%.0f', number + 0)
end

local function each(lines)
  return string.gmatch(lines or '', '[^\n]+')
end

-- Holds so much more (or less, if negative) at these counters.
local function hold_at(counters, nano, words)
  for counter in each(counters) do
    local usd = redis.call('HINCRBY', counter, 'hu', text(nano))
    local tokens = redis.call('HINCRBY', counter, 'ht', text(words))
    if (usd < 0 or tokens < 0) and redis.call('HEXISTS', counter, 'u') == 0 then
      -- It was forgotten long ago: its period is over.
      redis.call('DEL', counter)
    end
  end
end

-- Gives back what is held for a job. `used`: the tokens that it needed, where its rates are to be corrected, or nil.
local function release(job, used, now)
  local key = 'hold:' .. job
  local held = redis.call('HMGET', key, 'u', 't', 'b', 'r', 'rt', 'c')
  redis.call('ZREM', 'holds', job)
  if not (held[3] or held[4] or held[6]) then
    return 0
  end
  if held[3] then
    hold_at(held[3], -tonumber(held[1]), -tonumber(held[2]))
  end
  local rate
  for line in each(used and held[4]) do
    if not rate then
      rate = line
    else
      local arrival = tonumber(redis.call('GET', rate) or 0) + (used - tonumber(held[5])) * tonumber(line)
      if arrival > now then
        redis.call('SET', rate, string.format('%.3f', arrival), 'PX', math.ceil(arrival - now) + 1000)
      else
        redis.call('DEL', rate)
      end
      rate = nil
    end
  end
  for room in each(held[6]) do
    redis.call('ZREM', room, job)
  end
  redis.call('DEL', key)
  return 1
end

-- Releases holds whose lease has ended: their jobs are dead. Gives how many.
-- Only as far as settlement has come (`ledger:alive`: of each partition, unix ms up to which all completions are settled): what
-- ended while nobody settled is spent, and must stay held until that is counted.
local function sweep(now, most)
  for _, alive in ipairs(redis.call('HVALS', 'ledger:alive')) do
    now = math.min(now, tonumber(alive))
  end
  local ended = redis.call('ZRANGEBYSCORE', 'holds', '-inf', text(now), 'LIMIT', 0, most)
  for _, job in ipairs(ended) do
    release(job, nil, now)
  end
  return #ended
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end
