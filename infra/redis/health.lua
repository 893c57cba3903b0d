-- Which deployments are left alone, the same for all routers; and what each router sees of them, for who looks.
-- A deployment that is left alone has a field: `until rounds why holder held_until id`, unix ms by our clock. When `until` has come
-- one router may try it, whoever claims it first, until it has said what came of that, or its claim is over.
-- KEYS[1]: hash of deployments. KEYS[2]: hash of routers.
-- ARGV: router, how long a try may take in ms, how long a check, what the router sees or '', number of changes; of each: what, id,
--   ms or `until` as it was told, rounds, why, JSON list of those of which one must be left; then `try` or `check`, id, … claimed.
-- Gives for each that is left alone: id, ms left, rounds, why, `until`, ms left of its claim, 1 if that is the asker's, 1 if it is news.
local KEPT, FORGOTTEN, SOON = 7200000, 3600000, 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, fresh = ARGV[1], {}

local function read(text)
  local ends, rounds, why, holder, held, id = string.match(text or '', '^(%d+) (%d+) (%S+) (%S+) (%d+) (.+)$')
  return id and {ends = tonumber(ends), rounds = tonumber(rounds), why = why, holder = holder, held = tonumber(held), id = id}
end

local function find(id)
  return read(redis.call('HGET', KEYS[1], id))
end

local function save(one)
  local text = string.format('%.0f %d %s %s %.0f %s', one.ends, one.rounds, one.why, one.holder, one.held, one.id)
  redis.call('HSET', KEYS[1], one.id, text)
  redis.call('PEXPIRE', KEYS[1], KEPT)
end

local function one_is_left(others)
  for _, id in ipairs(others) do
    if not find(id) then
      return true
    end
  end
  return #others == 0
end

local changes = {}
function changes.open(id, ms, rounds, why, others)
  local before = find(id)
  if not before and not one_is_left(cjson.decode(others)) then
    return
  end
  fresh[id] = not before or before.why ~= why
  local one = {ends = now + ms, rounds = tonumber(rounds), why = why, holder = '-', held = 0, id = id}
  if before and before.ends > one.ends then
    one.ends, one.why = before.ends, before.why
  end
  if before and before.why == one.why then
    one.rounds = math.max(one.rounds, before.rounds)
  end
  save(one)
end
function changes.close(id, ends)
  local one = find(id)
  if one and one.ends == tonumber(ends) then
    redis.call('HDEL', KEYS[1], id)
  end
end
function changes.ease(id, ends)
  local one = find(id)
  if one and one.ends == tonumber(ends) then
    one.ends, one.holder, one.held = math.min(one.ends, now), '-', 0
    save(one)
  end
end
function changes.lift(id)
  redis.call('HDEL', KEYS[1], id)
end

local at = 6
for _ = 1, tonumber(ARGV[5]) do
  changes[ARGV[at]](ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  at = at + 6
end
for i = at, #ARGV, 2 do
  local one, check = find(ARGV[i + 1]), ARGV[i] == 'check'
  if one and one.held <= now and (check or one.ends - now <= SOON) then
    one.holder = me
    one.held = check and now + ARGV[3] or math.max(now, one.ends) + ARGV[2]
    save(one)
  end
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[2], me, string.format('%.0f %s', now, ARGV[4]))
  redis.call('PEXPIRE', KEYS[2], 60000)
end

local told = {}
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local one = read(text)
  if one.ends + FORGOTTEN < now then
    redis.call('HDEL', KEYS[1], one.id)
  else
    local parts = {one.id, math.max(0, one.ends - now), one.rounds, one.why, string.format('%.0f', one.ends)}
    parts[6], parts[7], parts[8] = math.max(0, one.held - now), one.holder == me and 1 or 0, fresh[one.id] and 1 or 0
    for _, part in ipairs(parts) do
      told[#told + 1] = part
    end
  end
end
return told
