//! The Lua scripts. A record is a hash of `v` (version) and `d` (value); the index is a sorted set of all keys
//! with the score 0, so it is in byte order.

use redis::Script;

use super::audience::{AUDIENCE, UNIQUES};

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
