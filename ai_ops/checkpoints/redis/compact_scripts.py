"""Lua scripts for the threads of CompactRedisSaver.

KEYS are a thread's hash and sorted set, thread after thread. The scripts that trim a thread are the saver's own, in
`langgraph_checkpoint_compact.scripts`.
"""

from __future__ import annotations

from ai_ops.checkpoints.logic.compact_plan import FORMAT

# A UUID has 36 bytes, and the number of writings at most 20 digits. A seal has both, three numbers and a namespace; a
# thread with a longer seal counts as unsealed.
ID_BYTES, NUMBER_BYTES, SEAL_BYTES = 64, 20, 256
# Limit on the bytes of a document that the script reads. A checkpoint without its values takes a few kilobytes.
DOCUMENT_BYTES = 8 * 1024 * 1024
# Limits on the documents and bytes of one call: one or two milliseconds.
CHECKED_BYTES = 4 * 1024 * 1024
CHECKED_AT_ONCE = 250
# The script does not ask for the memory of a hash with more fields, since Redis visits all of them at each call.
MEASURED_FIELDS = 1000
# Number of threads in one call of LOOK. Other clients wait for about a millisecond. The reply has some 150 bytes for
# each thread. Redis has a buffer of 16 KiB for it anyway.
LOOKED_AT_ONCE = 90
# Number of sealed threads that one call deletes: about two milliseconds.
SEALED_AT_ONCE = 100
# Limit on the namespaces of a thread that are counted for the report.
COUNTED_NAMESPACES = 100
# Limit on the fields of a hash without a sorted set that are searched for a time.
HALF_FIELDS = 5000
NAME_BYTES = 8192

_COMMON = (
    f"""
local call, byte, sub, match, find = redis.call, string.byte, string.sub, string.match, string.find
local FORMAT, ID, NUMBER, SEAL, DOCUMENT = {FORMAT}, {ID_BYTES}, {NUMBER_BYTES}, {SEAL_BYTES}, {DOCUMENT_BYTES}
local COUNTED, MEASURED = {COUNTED_NAMESPACES}, {MEASURED_FIELDS}
local budget = {CHECKED_BYTES}
"""
    """
-- Returns the newest checkpoint's id, the number of writings and the seal; nothing if the id or the number is too long.
-- A caller that knows the length of the id passes it.
local function heads(key, length)
  if (length or call('HSTRLEN', key, 'n')) > ID or call('HSTRLEN', key, 'p') > NUMBER then return nil end
  -- In place of a seal that is too long, the number of writings, which is not a valid seal.
  return call('HMGET', key, 'n', 'p', call('HSTRLEN', key, 's') <= SEAL and 's' or 'p')
end

-- Returns whether the seal has a newer format: the content of the thread is then unknown.
local function is_of_newer(seal)
  local format = seal and tonumber(match(seal, '^(%d%d?%d?) '))
  return format and format > FORMAT
end

-- Lua compares strings by the locale, but the order of ids is that of their bytes.
local function is_after(one, other)
  if one == other then return false end
  for i = 1, math.min(#one, #other) do
    local a, b = byte(one, i), byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- Returns whether each field has a document of a known format or is missing.
local function are_known(key, names)
  for first = 1, #names, 200 do
    local documents = call('HMGET', key, unpack(names, first, math.min(first + 199, #names)))
    for _, document in ipairs(documents) do
      local format = document and byte(document, 1)
      if format and (format == 0 or format > FORMAT) then return false end
    end
  end
  return true
end

-- Returns whether the whole hash is small enough to read each of its documents. If the user may not call MEMORY, or the
-- hash has many fields, the caller reads the length of each document, which takes twice as long.
local may_ask = true
local function is_small(key)
  if not may_ask or call('HLEN', key) > MEASURED then return false end
  local size = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  may_ask = type(size) == 'number'
  if not may_ask or size > DOCUMENT then return false end
  budget = budget - size
  return true
end

-- Examines checkpoints of a thread in their order. Returns whether their formats are known, and their ids have the kind
-- of the newest id and are not after it; the number of examined checkpoints; and the number of their namespaces.
local function look_at(key, members, newest)
  local names, count, namespaces, namespace, before = {}, 0, 0, nil, nil
  local length, kind, all_small = #newest, byte(newest, 15), is_small(key)

  local function add(member)
    local document, writes = 'c|' .. member, 'w|' .. member
    if not all_small then
      local size, more = call('HSTRLEN', key, document), call('HSTRLEN', key, writes)
      if size > DOCUMENT or more > DOCUMENT then return false end
      budget = budget - size - more
    end
    local at = #names
    names[at + 1], names[at + 2] = document, writes
    return true
  end

  local function ends_well()
    return not before or not is_after(sub(before, #before - length + 1), newest)
  end

  for index = 1, #members do
    if budget <= 0 then break end
    local member = members[index]
    local at = #member - length
    if at < 1 or byte(member, at) ~= 124 or byte(member, at + 15) ~= kind then return false end
    local own = sub(member, 1, at)
    if own ~= namespace then
      if not ends_well() or find(own, '|', 1, true) ~= at then return false end
      namespace, namespaces = own, namespaces + 1
    end
    before = member
    if not add(member) then return false end
    count = index
  end
  return ends_well() and are_known(key, names), count, namespaces
end
"""
)

# Returns LOOK_WORDS for each thread. A complete thread has its newest id, the number of writings, the seal, and the
# numbers of checkpoints and of fields. A young one has, instead of seal and fields, the first and the last name of a
# checkpoint at the end, or nothing if those are long. Any other thread has its State instead of the newest id. ARGV:
# the first eight digits of a young UUID of version 6.
# The words of all threads are in one list, because a table per thread would cost Redis more than all these commands.
LOOK = (
    _COMMON
    + """
local FOREIGN, HALF, GONE = 1, 2, 3
local MOST, young, replies, at = 8192, tonumber(ARGV[1], 16), {}, 0

local function say(newest, writings, seal, checkpoints, fields, first, last)
  replies[at + 1], replies[at + 2], replies[at + 3], replies[at + 4] = newest, writings, seal, checkpoints
  replies[at + 5], replies[at + 6], replies[at + 7] = fields, first, last
  at = at + 7
end

local function say_state(state) say(state, false, false, 0, 0, '', '') end

local function look(key, ids)
  local size, count = redis.pcall('HSTRLEN', key, 'n'), redis.pcall('ZCARD', ids)
  if type(size) == 'table' or type(count) == 'table' then
    local err = type(size) == 'table' and size or count
    if not find(err.err, 'WRONGTYPE', 1, true) then return err end
    say_state(FOREIGN)
  elseif size > 0 and count > 0 then
    local found = heads(key, size)
    if not found then
      say_state(FOREIGN)
      return
    end
    if (tonumber(sub(found[1], 1, 8), 16) or 0) < young then
      say(found[1], found[2], found[3], count, call('HLEN', key), '', '')
      return
    end
    local first, last = call('ZRANGE', ids, 0, 0)[1], call('ZRANGE', ids, -1, -1)[1]
    if #first > MOST or #last > MOST then first, last = '', '' end
    say(found[1], found[2], false, count, 0, first, last)
  else
    local kind, kind_of_ids = call('TYPE', key).ok, call('TYPE', ids).ok
    local is_none, is_none_too = kind == 'none', kind_of_ids == 'none'
    say_state(is_none and is_none_too and GONE or (is_none or is_none_too) and HALF or FOREIGN)
  end
end

for index = 1, #KEYS, 2 do
  local err = look(KEYS[index], KEYS[index + 1])
  if err then return err end
end
return replies
"""
)
LOOK_WORDS = 7

# Returns the pending writes of the root namespace's newest checkpoint, or without a root those of each namespace's
# newest; nothing if they are unknown. ARGV: the limit on the length of one, and on the number of namespaces.
WAITING = """
local key, ids, found = KEYS[1], KEYS[2], {}
local newest = redis.call('ZRANGE', ids, '(}', '[|', 'BYLEX', 'REV', 'LIMIT', 0, 1)
if #newest == 0 then
  local below = '+'
  while true do
    local last = redis.call('ZRANGE', ids, below, '-', 'BYLEX', 'REV', 'LIMIT', 0, 1)[1]
    if not last then break end
    if #newest >= tonumber(ARGV[2]) then return {} end
    newest[#newest + 1] = last
    below = '(' .. (string.match(last, '^[^|]*') or '') .. '|'
  end
end
for _, name in ipairs(newest) do
  if redis.call('HSTRLEN', key, 'w|' .. name) > tonumber(ARGV[1]) then return {} end
  found[#found + 1] = redis.call('HGET', key, 'w|' .. name) or ''
end
return {found}
"""

# Checks whether some of a thread's checkpoints have a known format, and ids like the newest one. ARGV: the newest id;
# the places of the first and the last checkpoint. Returns 1 or 0, and the place at which to continue if there are too
# many.
CHECK = (
    _COMMON
    + """
local at = tonumber(ARGV[2])
local known, count = look_at(KEYS[1], call('ZRANGE', KEYS[2], at, ARGV[3]), ARGV[1])
return {known and 1 or 0, at + (count or 0)}
"""
)

# Deletes whole threads that have not changed. ARGV: "1" for a dry run; for each thread the newest id, the number of
# writings, and one of the four words below. Returns for each thread the number of its namespaces, or the reason why it
# stays.
DROP_THREADS = (
    _COMMON
    + """
local CHANGED, UNKNOWN, GONE, TOO_MUCH = 0, -1, -2, -3
local dry, at, replies, gone = ARGV[1] == '1', 2, {}, {}

-- Returns the number of a thread's namespaces, up to the limit.
local function namespaces_of(ids)
  local above = '-'
  for count = 0, COUNTED do
    local member = call('ZRANGE', ids, above, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not member then return count end
    above = '(' .. match(member, '^[^|]*') .. '}'
  end
  return COUNTED
end

local function looked_at(key, ids, newest, writings, checked)
  local kind, kind_of_ids = call('TYPE', key).ok, call('TYPE', ids).ok
  if kind == 'none' and kind_of_ids == 'none' then return GONE end
  if kind ~= 'hash' or kind_of_ids ~= 'zset' then return CHANGED end
  local found = heads(key)
  if not found or found[1] ~= newest or (found[2] or '') ~= writings then return CHANGED end
  if is_of_newer(found[3]) then return UNKNOWN end
  if checked then return namespaces_of(ids) end
  local members = call('ZRANGE', ids, 0, -1)
  local known, count, namespaces = look_at(key, members, newest)
  if not known then return UNKNOWN end
  return count == #members and namespaces or TOO_MUCH
end

for index = 1, #KEYS, 2 do
  local key, ids, newest, writings, how = KEYS[index], KEYS[index + 1], ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local reply = nil
  if how == 's' or how == 'm' then
    -- LOOK has found that the seal is valid. It stays valid while the newest id and the number of writings are
    -- unchanged, and a copy into the thread removes it.
    local found = redis.pcall('HMGET', key, 'n', 'p', 's')
    if found[1] == newest and found[2] == writings and found[3] then
      reply = how == 's' and 1 or namespaces_of(ids)
    end
  end
  reply = reply or looked_at(key, ids, newest, writings, how == 'c')
  if reply > 0 then
    gone[#gone + 1] = key
    gone[#gone + 1] = ids
  end
  replies[#replies + 1] = reply
  at = at + 3
end
if not dry and #gone > 0 then call('UNLINK', unpack(gone)) end
return replies
"""
)
CHANGED, UNKNOWN, GONE, TOO_MUCH = 0, -1, -2, -3
# The script must check its documents; they are checked; its seal is valid and names one namespace; or several.
TO_CHECK, CHECKED, SEALED, SEALED_SEVERAL = b"-", b"c", b"s", b"m"

# Returns, for a thread with only one key: the number of writings, the number of ids in the key (-1 if the key expires),
# and the newest id; nothing if they are unknown. ARGV: the limit on the searched fields.
HALF = (
    _COMMON
    + """
local key, ids, most, newest, count = KEYS[1], KEYS[2], tonumber(ARGV[1]), nil, 0
local kind, kind_of_ids = call('TYPE', key).ok, call('TYPE', ids).ok
if (kind ~= 'hash' and kind ~= 'none') or (kind_of_ids ~= 'zset' and kind_of_ids ~= 'none') then return {} end
-- An unfinished copy has an expiry, and Redis deletes it then.
if call('PTTL', kind == 'hash' and key or ids) > 0 then return {'', -1, ''} end
local names = {}
if kind == 'hash' then
  if call('HLEN', key) > most then return {} end
  for _, name in ipairs(call('HKEYS', key)) do
    local member = match(name, '^[cw]|(.*)$')
    if member then
      budget = budget - call('HSTRLEN', key, name)
      if budget < 0 or not are_known(key, {name}) then return {} end
      names[#names + 1] = member
    end
  end
end
if kind_of_ids == 'zset' then
  if call('ZCARD', ids) > most then return {} end
  for _, member in ipairs(call('ZRANGE', ids, 0, -1)) do names[#names + 1] = member end
end
for _, member in ipairs(names) do
  local id = match(member, '^[^|]*|(.*)$')
  if not id or #id > ID then return {} end
  if newest and (#id ~= #newest or sub(id, 15, 15) ~= sub(newest, 15, 15)) then return {} end
  if not newest or is_after(id, newest) then newest = id end
  count = count + 1
end
local found = kind == 'hash' and heads(key) or {}
return {found[2] or '', count, newest or ''}
"""
)

# Deletes the only key of a thread if it has not changed. ARGV: "1" for a dry run; the number of writings of a hash; the
# number of names in a sorted set. Returns 1, or CHANGED.
DROP_HALF = (
    _COMMON
    + """
local key, ids = KEYS[1], KEYS[2]
local kind, kind_of_ids = call('TYPE', key).ok, call('TYPE', ids).ok
if kind == 'hash' and kind_of_ids == 'none' then
  local found = heads(key) or {}
  if (found[2] or '') ~= ARGV[2] then return 0 end
elseif kind ~= 'none' or kind_of_ids ~= 'zset' or call('ZCARD', ids) ~= tonumber(ARGV[3]) then
  return 0
end
if ARGV[1] ~= '1' then call('UNLINK', key, ids) end
return 1
"""
)

# Returns fields of a hash within the limits. ARGV: the limit on the length of one; the limit on all bytes; the fields.
FIELDS = """
local limit, room, replies = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
for index = 3, #ARGV do
  local size = redis.call('HSTRLEN', KEYS[1], ARGV[index])
  if size > limit then error('LGCDAMAGED') end
  if index > 3 and size > room then break end
  room = room - size
  replies[#replies + 1] = redis.call('HGET', KEYS[1], ARGV[index])
end
return replies
"""

# Returns names in a sorted set. ARGV: the start; the number of names; the limit on the length of one.
NAMES = """
local found = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
for _, name in ipairs(found) do
  if #name > tonumber(ARGV[3]) then error('LGCDAMAGED') end
end
return found
"""
