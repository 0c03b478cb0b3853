//! The Lua scripts. A record is a hash of `v` (version) and `d` (value); the index is a sorted set of all keys
//! with the score 0, so it is in byte order.

use redis::Script;

/// KEYS: record. Gives {version, value} or nothing.
const GET: &str = r"
local found = redis.call('HMGET', KEYS[1], 'v', 'd')
if not found[1] then return nil end
return found
";

/// KEYS: version counter, index, then the records of checks, puts, deletes.
/// ARGV: how many of each; per check the version or 0; per put key, value, ttl ms or 0; per delete the key.
/// Gives {1, new version} or {0, number of the check that failed}.
const COMMIT: &str = r"
local checks, puts, deletes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local k, a = 2, 3
for i = 1, checks do
  local version = redis.call('HGET', KEYS[k + i], 'v') or '0'
  if version ~= ARGV[a + i] then return {0, i} end
end
k, a = k + checks, a + checks
local version = redis.call('INCR', KEYS[1])
for i = 1, puts do
  local record, key, value, ttl = KEYS[k + i], ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3])
  redis.call('HSET', record, 'v', version, 'd', value)
  if ttl > 0 then redis.call('PEXPIRE', record, ttl) else redis.call('PERSIST', record) end
  redis.call('ZADD', KEYS[2], 0, key)
  a = a + 3
end
k = k + puts
for i = 1, deletes do
  redis.call('DEL', KEYS[k + i])
  redis.call('ZREM', KEYS[2], ARGV[a + i])
end
return {1, version}
";

/// KEYS: index. ARGV: from, to (as ZRANGE BYLEX), limit, prefix of record keys. Gives the
/// last key looked at if there may be more, else an empty string, and then key, version, value of each record
/// that has not expired; the index forgets those that have.
const SCAN: &str = r"
local limit = tonumber(ARGV[3])
local keys = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, limit)
local out = {''}
for _, key in ipairs(keys) do
  local found = redis.call('HMGET', ARGV[4] .. key, 'v', 'd')
  if found[1] then
    out[#out + 1] = key
    out[#out + 1] = found[1]
    out[#out + 1] = found[2]
  else
    redis.call('ZREM', KEYS[1], key)
  end
end
if #keys == limit then out[1] = keys[#keys] end
return out
";

/// KEYS: the members (a sorted set by expiry time), the name under which each counts among unique viewers (a hash: `group#place`),
/// the ids by group and kind with the number of viewers under `total` (a hash), the unique viewers.
/// ARGV: ms for which the audience and the unique viewers are kept, 1 if unique viewers are counted; per sighting viewer, group, ttl ms
/// or 0. Gives the number of viewers. Kinds are the first characters of ids.
const AUDIENCE: &str = r"
local members, names, counts, uniques = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function most(group)
  local most = 0
  for _, ids in ipairs(redis.call('HMGET', counts, group .. '#b', group .. '#c', group .. '#r', group .. '#w')) do
    ids = tonumber(ids or 0)
    if ids > most then most = ids end
  end
  return most
end
local function change(group, viewer, by)
  local field = group .. '#' .. string.sub(viewer, 1, 1)
  local before = most(group)
  local ids = redis.call('HINCRBY', counts, field, by)
  if ids <= 0 then redis.call('HDEL', counts, field) end
  local more = most(group) - before
  if more ~= 0 then redis.call('HINCRBY', counts, 'total', more) end
  return ids
end
local function group_of(name) return string.match(name, '^(.*)#') end
local function remove(viewer)
  local name = redis.call('HGET', names, viewer)
  redis.call('ZREM', members, viewer)
  if not name then return end
  redis.call('HDEL', names, viewer)
  change(group_of(name), viewer, -1)
end
local expired
repeat
  expired = redis.call('ZRANGEBYSCORE', members, '-inf', now, 'LIMIT', 0, 1000)
  for _, viewer in ipairs(expired) do remove(viewer) end
until #expired < 1000
local seen = {}
for i = 4, #ARGV, 3 do
  local viewer, group, ttl = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if ttl == 0 then
    remove(viewer)
  else
    local name = redis.call('HGET', names, viewer)
    if not name or group_of(name) ~= group then
      remove(viewer)
      name = group .. '#' .. change(group, viewer, 1)
      redis.call('HSET', names, viewer, name)
    end
    redis.call('ZADD', members, now + ttl, viewer)
    seen[#seen + 1] = name
  end
end
if #seen > 0 then
  for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], now + ARGV[1]) end
  if ARGV[3] == '1' then
    redis.call('PFADD', uniques, unpack(seen))
    redis.call('PEXPIRE', uniques, ARGV[2])
  end
end
return tonumber(redis.call('HGET', counts, 'total') or 0)
";

/// KEYS: unique viewers. Gives the estimated number of them.
const UNIQUES: &str = r"
return redis.call('PFCOUNT', KEYS[1])
";

pub(super) struct Scripts {
    pub(super) get: Script,
    pub(super) commit: Script,
    pub(super) scan: Script,
    pub(super) audience: Script,
    pub(super) uniques: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            get: Script::new(GET),
            commit: Script::new(COMMIT),
            scan: Script::new(SCAN),
            audience: Script::new(AUDIENCE),
            uniques: Script::new(UNIQUES),
        }
    }
}
