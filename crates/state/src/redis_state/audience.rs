//! Audiences on Redis: three keys for each, changed by one script. They expire together, after the last viewer has.

use super::{RedisState, number};
use crate::StateError;
use crate::audience::{MAX_VIEWER_TTL, Sighting, UNIQUES_TTL, check};

/// KEYS: the members (a sorted set by expiry time), the name under which each counts among unique viewers (a hash: `group#place`),
/// the ids by group and kind with the number of viewers under `total` (a hash), the unique viewers.
/// ARGV: ms for which the audience and the unique viewers are kept, 1 if unique viewers are counted; per sighting viewer, group, ttl ms
/// or 0. Gives the number of viewers. Kinds are the first characters of ids.
pub(super) const AUDIENCE: &str = r"
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
pub(super) const UNIQUES: &str = r"
return redis.call('PFCOUNT', KEYS[1])
";

/// Time for which the keys of an audience outlive its last viewer: they must not expire before it.
const SLACK_MS: u64 = 60_000;

impl RedisState {
    /// Notes sightings of an audience; returns the number of its viewers.
    pub(super) async fn note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError> {
        check(audience, uniques, sightings)?;
        let mut call = self.scripts.audience.prepare_invoke();
        for part in ["", "/names", "/counts"] {
            call.key(format!("{}s:{audience}{part}", self.prefix));
        }
        call.key(self.uniques(uniques.unwrap_or(audience)));
        call.arg(MAX_VIEWER_TTL.as_millis() as u64 + SLACK_MS).arg(UNIQUES_TTL.as_millis() as u64);
        call.arg(u8::from(uniques.is_some()));
        for sighting in sightings {
            call.arg(&sighting.viewer).arg(&sighting.group).arg(sighting.ttl.as_millis() as u64);
        }
        number(self.run(&call).await?)
    }
}
