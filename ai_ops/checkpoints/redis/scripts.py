"""Lua scripts that check and delete in one step."""

from __future__ import annotations


def _short(source: str) -> str:
    """Return a script without comments and indentation: Redis reads and hashes its text with each call."""
    lines = map(str.strip, source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


# Executes one step of a SCAN of keys that may be long. It takes Redis more than twice the time of the command itself.
# ARGV: the limit on one key's length; the limit on all keys together; the command. Returns the cursor and the keys, or
# only the cursor if the keys together are too long: then the caller retries with a smaller COUNT. A key over its limit
# is replaced by its beginning, a byte that does not occur in UTF-8, and its digest.
SCAN_LONG = """
local reply = redis.call(unpack(ARGV, 3))
local keys, cut, size = reply[2], tonumber(ARGV[1]), 0
for index = 1, #keys do
  local key = keys[index]
  if #key > cut then
    key = string.sub(key, 1, 256) .. string.char(255) .. redis.sha1hex(key)
    keys[index] = key
  end
  size = size + #key
end
if size > tonumber(ARGV[2]) then return {reply[1]} end
return reply
"""

# Reads values of limited length, with the command for the type of each key. KEYS: the keys. ARGV: the limit in bytes on
# one value; the limit on all values together; the paths to read in a JSON document. Returns the type and the value of
# each key. The value is missing if it is of another type, too long, or not readable. If all values together are too
# long, it returns those of the first keys only.
READ = """
local limit, room, paths, replies = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, {}
for index = 3, #ARGV do paths[#paths + 1] = ARGV[index] end
for index, key in ipairs(KEYS) do
  local kind, value, size = redis.call('TYPE', key).ok, false, 0
  if kind == 'ReJSON-RL' then value = #paths > 0 and redis.pcall('JSON.GET', key, unpack(paths))
  elseif kind == 'string' then value = redis.pcall('GETRANGE', key, 0, limit)
  elseif kind == 'list' then value = redis.pcall('LINDEX', key, 0)
  elseif kind == 'zset' then value = redis.pcall('ZRANGE', key, 0, 100)
  end
  if type(value) == 'string' then size = #value
  elseif type(value) == 'table' and value.err then
    if not string.find(value.err, '[Pp]ath') then return redis.error_reply(value.err) end
    value = false
  elseif type(value) == 'table' then
    for place = 1, #value do size = size + #value[place] end
  end
  if size > limit then value, size = false, 0 end
  if index > 1 and size > room then break end
  room = room - size
  replies[index] = {kind, value}
end
return replies
"""
# The maximum length of a value to read, for long conversations in one string. In Python a value takes several times as
# much memory, so all values of one reply together have the same limit.
VALUE_BYTES = 8 * 1024 * 1024
REPLY_BYTES = 8 * 1024 * 1024
# The limit for values with only names and ids. A reply may have a thousand of them.
NAME_BYTES = 64 * 1024

# Deletes a pointer (or ValkeySaver's list, or a shallow saver's only document) only if it still has the value from
# which the plan was made. It deletes all pointers of a thread or none: a continued conversation keeps all its keys.
# KEYS: pointers, thread by thread. ARGV: "1" for a dry run; number of threads; number of pointers of each thread;
# expected values in the order of KEYS. Returns per thread 1 (deleted) or 0 (changed).
DROP_POINTERS = _short("""
-- Lua allows about eight thousand arguments of a command.
local MOST = 1000
local dry, threads, at, replies, chosen, kind = ARGV[1] == '1', tonumber(ARGV[2]), 0, {}, {}, ''
for thread = 1, threads do
  local count, same = tonumber(ARGV[2 + thread]), 1
  for index = at + 1, at + count do
    local expected, value = ARGV[2 + threads + index], nil
    -- Nearly always the type is that of the previous pointer. Then no other command is necessary.
    if kind == 'string' then value = redis.pcall('GET', KEYS[index])
    elseif kind == 'list' then value = redis.pcall('LINDEX', KEYS[index], 0) end
    if value ~= expected then
      kind = redis.call('TYPE', KEYS[index]).ok
      if kind == 'string' then value = redis.call('GET', KEYS[index])
      elseif kind == 'list' then value = redis.call('LINDEX', KEYS[index], 0)
      elseif kind == 'ReJSON-RL' then value = redis.call('JSON.GET', KEYS[index], '$.checkpoint.id') end
      if kind ~= 'none' and value ~= expected then same = 0 end
    end
  end
  if same == 1 and not dry then
    for index = at + 1, at + count do chosen[#chosen + 1] = KEYS[index] end
  end
  at = at + count
  replies[thread] = same
end
for first = 1, #chosen, MOST do redis.call('UNLINK', unpack(chosen, first, math.min(first + MOST - 1, #chosen))) end
return replies
""")

# Deletes keys of the expected types. KEYS: the keys, kind by kind. ARGV: "1" for a dry run; then for each kind the
# number of its keys, and their types between commas. Returns, for each key that it did not delete, its index from 0 and
# one of the two numbers below.
DROP_KEYS = _short("""
local call, pcall, type, dry, at, replies = redis.call, redis.pcall, type, ARGV[1] == '1', 0, {}
-- A length costs half of TYPE, and proves the type as well, unless it is 0 or an error.
local probes = {string = 'STRLEN', zset = 'ZCARD'}
for part = 2, #ARGV, 2 do
  local first, last, kinds, chosen, probe = at + 1, at + tonumber(ARGV[part]), {}, nil, nil
  for kind in string.gmatch(ARGV[part + 1], '[^,]+') do kinds[kind] = true end
  for index = first, last do
    local key = KEYS[index]
    -- Nearly always the type is that of the previous key.
    local size = probe and pcall(probe, key)
    local is_right = size and size ~= 0 and type(size) == 'number'
    if not is_right then
      local kind = call('TYPE', key).ok
      is_right = kinds[kind]
      -- The type is that of the previous key, so the key is empty or the user may not call the command.
      if probe and probe == probes[kind] then probes[kind] = nil end
      probe = is_right and probes[kind]
      if not is_right then
        chosen = chosen or {unpack(KEYS, first, index - 1)}
        replies[#replies + 1] = index - 1
        replies[#replies + 1] = kind == 'none' and 0 or 1
      end
    end
    if chosen and is_right then chosen[#chosen + 1] = key end
  end
  if not dry then
    if not chosen then call('UNLINK', unpack(KEYS, first, last))
    elseif #chosen > 0 then call('UNLINK', unpack(chosen)) end
  end
  at = last
end
return replies
""")
GONE, OF_ANOTHER_TYPE = range(2)
