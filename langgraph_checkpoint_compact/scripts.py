"""The Lua scripts that run in the server, each one atomic and one round trip.

All keys of a call are the two keys of one thread, so that a cluster finds them in one slot. `documents` describes the
bytes that the scripts parse; both sides must agree on them.

A script checks everything before its first write: it writes all or nothing. It refuses data of a newer format with
an error that begins with NEWER_FORMAT.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

FORMAT = 1

# A chunk and its string header fit an allocation class of 32 KiB: 32 KiB of data would take 40.
CHUNK_BYTES = 32 * 1024 - 64

# Writes up to this size share one field of their checkpoint. Larger writes, and all writes after this field has reached
# WRITES_FIELD_BYTES, have their own fields, so that parallel tasks do not rewrite megabytes.
INLINE_WRITE_BYTES = 2048
WRITES_FIELD_BYTES = 64 * 1024

# Limit on nested branches of logs: reading a log reads all logs from which it branches.
LOG_DEPTH_LIMIT = 16

# Scripts do not read values of this size or more.
LARGE_VALUE_BYTES = 256 * 1024

# References to a log are shorter than this: 24 bytes, a type and a header of at most 255 each, and the log's name.
POINTER_BYTES = 1024

NEWER_FORMAT = "LGCNEWER"
DAMAGED = "LGCDAMAGED"


@dataclass(frozen=True)
class Script:
    """The source of a script, and the digest that identifies it on a server."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


_COMMON = f"""
local FORMAT, CHUNK = {FORMAT}, {CHUNK_BYTES}
local INLINE_WRITE, WRITES_FIELD, DEPTH = {INLINE_WRITE_BYTES}, {WRITES_FIELD_BYTES}, {LOG_DEPTH_LIMIT}
local LARGE, POINTER = {LARGE_VALUE_BYTES}, {POINTER_BYTES}
local key, ids = KEYS[1], KEYS[2]
local call, byte, sub, floor = redis.call, string.byte, string.sub, math.floor
local unpack_number = struct.unpack

local refused = nil
local function known(name, document)
  if document == '' then error('{DAMAGED}') end
  if document and byte(document, 1) > FORMAT then
    refused = refused or redis.error_reply('{NEWER_FORMAT} ' .. byte(document, 1) .. ' ' .. name)
    return false
  end
  return document
end

-- Sets one deadline for both keys of the thread, so that it expires completely.
local function set_deadline(milliseconds, send)
  milliseconds = tonumber(milliseconds)
  if milliseconds == 0 then return end
  local now = call('TIME')
  local deadline = string.format('%.0f', now[1] * 1000 + floor(now[2] / 1000) + milliseconds)
  send = send or call
  send('PEXPIREAT', key, deadline)
  send('PEXPIREAT', ids, deadline)
end

-- Lua compares strings by the locale, but the order of ids is that of their bytes, as in the sorted set.
local function is_after(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = byte(one, i), byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- Returns whether the order of two ids is that of their times: UUIDs of one version, or texts of one length.
local function are_alike(one, other) return #one == #other and (#one ~= 36 or byte(one, 15) == byte(other, 15)) end

-- The seal means that scripts which keep it have written the whole thread, in formats up to the one that it names, and
-- that the ids are in the order of their times. It is valid while the thread has the numbers of writings, fields and
-- checkpoints and the newest checkpoint that it names. A version without seals makes it invalid by counting its own
-- writings. A newer format needs a seal that names it. The namespace is that of all checkpoints, or * for several.
local function seal_of(format, namespace)
  local now = call('HMGET', key, 'p', 'n')
  local counts = (now[1] or '') .. ' ' .. call('HLEN', key) .. ' ' .. call('ZCARD', ids)
  return format .. ' ' .. counts .. ' ' .. namespace .. '|' .. (now[2] or '')
end

-- Returns the format and the namespace of a valid seal, or of the seal of a new thread. Call it before the first write.
local function find_seal()
  local seal, fields, count = call('HGET', key, 's'), call('HLEN', key), call('ZCARD', ids)
  if not seal then return fields + count == 0 and {{format = FORMAT}} or nil end
  local format, namespace = string.match(seal, '^(%d%d?%d?) %d+ %d+ %d+ ([^|]*)|')
  if not format or seal ~= seal_of(format, namespace) then return nil end
  return {{format = math.max(tonumber(format), FORMAT), namespace = count > 0 and namespace or nil}}
end

-- Counts a writing after its last write, and seals the thread or removes its seal. The seal is one of the fields.
local function count_writing(seal)
  local writings = call('HINCRBY', key, 'p', 1)
  if seal then
    call('HSET', key, 's', '')
    call('HSET', key, 's', seal_of(seal.format, seal.namespace or ''))
  else
    call('HDEL', key, 's')
  end
  return writings
end

-- format, kind, length and digest, then the lengths of type and header, both, and the body or the log's name
local function prefix_length(record)
  if #record < 24 then error('{DAMAGED}') end
  return 24 + byte(record, 23) + byte(record, 24)
end
local function is_log(record) return byte(record, 2) == 108 end
local function tail(record) return sub(record, 3, 22) end
local function body_length(record) return unpack_number('>I4', record, 3) end

-- format, depth, the length at which it branches from its base, its length with its base, the base's name
local function log_head(name)
  local head = known('l|' .. name, call('HGET', key, 'l|' .. name))
  if not head then return nil end
  if #head < 10 then error('{DAMAGED}') end
  return {{depth = byte(head, 2), base_length = unpack_number('>I4', head, 3), length = unpack_number('>I4', head, 7),
          base = sub(head, 11)}}
end

local function chunk_name(log, number) return 'k|' .. log .. '|' .. string.format('%d', number) end

-- Names of the fields of one checkpoint's large writes.
local function own_field(member, index, task)
  return 'o|' .. #member .. '|' .. member .. '|' .. index .. '|' .. task
end

-- Each write: its length, its index, its task with the task's length, what the client wrote, and d with the data
-- or o where the data has a field of its own.
local function each_write(field, visit)
  local position, last = 2, #field
  while position <= last do
    local size = last - position >= 11 and unpack_number('>I4', field, position) or 0
    -- Another program has written this. Without the error the loop would not end.
    if size < 13 or position + size - 1 > last then error('{DAMAGED}') end
    local index = unpack_number('>i4', field, position + 4)
    local task_size = unpack_number('>I4', field, position + 8)
    local task = sub(field, position + 12, position + 11 + task_size)
    visit(index, task, position, position + size - 1)
    position = position + size
  end
end

local function own_fields(member, field)
  local found = {{}}
  if not field then return found end
  each_write(field, function(index, task, _, last)
    if byte(field, last) == 111 then found[#found + 1] = own_field(member, index, task) end
  end)
  return found
end
"""


# Limits its answer: it returns only the beginning of long logs, and '' for large values and writes. The client reads
# those with separate commands, so that the server need not copy them into the script and out of it.
READ = Script(
    _COMMON
    + """
local ttl, budget, namespace, count = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local wanted, position = {}, 5
if count == 0 then
  wanted = call('ZREVRANGEBYLEX', ids, '(' .. namespace .. '}', '[' .. namespace .. '|', 'LIMIT', 0, 1)
else
  for i = 1, count do wanted[i] = ARGV[position]; position = position + 1 end
end
local have = {}
while ARGV[position] do have[ARGV[position]] = tonumber(ARGV[position + 1]); position = position + 2 end

local documents, records, writes, seen, needed, size, done = {}, {}, {}, {}, {}, 0, 0

local function need(log, length)
  while log ~= '' do
    local known_need = needed[log]
    if known_need and known_need.length >= length then return end
    local head = known_need and known_need.head or log_head(log)
    if not head then return end
    size = size + length - (known_need and known_need.length or head.base_length)
    needed[log] = {length = length, head = head}
    log, length = head.base, math.min(length, head.base_length)
  end
end

for _, member in ipairs(wanted) do
  if done > 0 and size > budget then break end
  done = done + 1
  local document = known('c|' .. member, call('HGET', key, 'c|' .. member))
  if document then
    documents[#documents + 1] = member
    documents[#documents + 1] = document
    local stem = 'v|' .. string.match(member, '^[^|]*') .. '|'
    local missing = {}
    for name in string.gmatch(sub(document, 6, 5 + unpack_number('>I4', document, 2)), '[^\\n]+') do
      name = stem .. name
      if not seen[name] then
        seen[name] = true
        missing[#missing + 1] = name
      end
    end
    for _, name in ipairs(missing) do
      local record = ''
      if call('HSTRLEN', key, name) < LARGE then record = known(name, call('HGET', key, name)) end
      if record then
        records[#records + 1] = name
        records[#records + 1] = record
        size = size + #record
        if record ~= '' and is_log(record) then need(sub(record, prefix_length(record) + 1), body_length(record)) end
      end
    end
    local field = known('w|' .. member, call('HGET', key, 'w|' .. member))
    if field then
      local own = {}
      for _, name in ipairs(own_fields(member, field)) do
        local data = ''
        if size < budget and call('HSTRLEN', key, name) < LARGE then data = call('HGET', key, name) or '' end
        size = size + #data
        own[#own + 1] = name
        own[#own + 1] = data
      end
      writes[#writes + 1] = member
      writes[#writes + 1] = field
      writes[#writes + 1] = own
    end
  end
end
if refused then return refused end

local logs = {}
for log, found in pairs(needed) do
  local base_length = found.head.base_length
  local chunks = {}
  if (have[log] or 0) < found.length then
    for number = 0, math.ceil((found.length - base_length) / CHUNK) - 1 do
      if budget <= 0 then break end
      chunks[#chunks + 1] = call('HGET', key, chunk_name(log, number)) or ''
      budget = budget - CHUNK
    end
  end
  logs[#logs + 1] = {log, found.head.base, base_length, found.length, chunks}
end
-- A replica refuses this, but can still be read.
set_deadline(ttl, redis.pcall)
return {done, documents, records, logs, writes}
"""
)


# Returns the heads of a checkpoint's values, or of the named values, and of their logs. A named value that is too long
# for a reference to a log comes as ''.
HEADS = Script(
    _COMMON
    + """
local member, names = ARGV[1], {}
if member ~= '' then
  local document = known('c|' .. member, call('HGET', key, 'c|' .. member))
  if refused then return refused end
  if not document then return {{}, {}} end
  local stem = 'v|' .. string.match(member, '^[^|]*') .. '|'
  for name in string.gmatch(sub(document, 6, 5 + unpack_number('>I4', document, 2)), '[^\\n]+') do
    names[#names + 1] = stem .. name
  end
else
  for i = 2, #ARGV do names[#names + 1] = ARGV[i] end
end
local heads, logs, seen = {}, {}, {}
for _, name in ipairs(names) do
  local is_long = member == '' and call('HSTRLEN', key, name) > POINTER
  local record = is_long and '' or known(name, call('HGET', key, name))
  if record then
    heads[#heads + 1] = name
    if is_long then
      heads[#heads + 1] = ''
    elseif is_log(record) then
      heads[#heads + 1] = record
      local log = sub(record, prefix_length(record) + 1)
      while log ~= '' and not seen[log] do
        seen[log] = true
        local head = log_head(log)
        if not head then break end
        logs[#logs + 1] = {log, head.base, head.base_length, head.length}
        log = head.base
      end
    else
      heads[#heads + 1] = sub(record, 1, prefix_length(record))
    end
  end
end
if refused then return refused end
return {heads, logs}
"""
)


# Returns the numbers of the values with another predecessor than the client expects, and as negative numbers the
# missing carried values, which an earlier checkpoint should have stored. If it returns any number, it has written
# nothing.
PUT = Script(
    _COMMON
    + """
local ttl, member, id, document = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local empty_count, carried_count = tonumber(ARGV[5]), tonumber(ARGV[6])
local position = 7 + empty_count
local values, stale = {}, {}
for i = 1, carried_count do
  if call('HEXISTS', key, ARGV[position]) == 0 then stale[#stale + 1] = -i end
  position = position + 1
end
known('c|' .. member, call('HGET', key, 'c|' .. member))
while ARGV[position] do
  local value = {name = ARGV[position], record = ARGV[position + 1], before = ARGV[position + 2],
                 before_tail = ARGV[position + 3], log = ARGV[position + 4], bytes = ARGV[position + 5]}
  position = position + 6
  values[#values + 1] = value
  local present = known(value.name, call('HGET', key, value.name))
  local prefix = prefix_length(value.record)
  -- A put that is sent again after its answer was lost changes nothing.
  value.done = present and sub(present, 3, prefix) == sub(value.record, 3, prefix)
  if not value.done and value.before ~= '' then
    local before = known(value.before, call('HGET', key, value.before))
    if not before or tail(before) ~= value.before_tail then
      stale[#stale + 1] = #values
    else
      value.before_record = before
      if is_log(before) then
        local name = sub(before, prefix_length(before) + 1)
        local head = log_head(name)
        if not head or (head.length ~= body_length(before) and head.depth >= DEPTH) then
          stale[#stale + 1] = #values
        end
      end
    end
  end
end
if refused then return refused end
if #stale > 0 then return stale end
-- Both now and at the end, so that a user without the permission gets the error before anything is written.
set_deadline(ttl)
local newest, seal, own = call('HGET', key, 'n'), find_seal(), string.match(member, '^[^|]*')
if newest and not are_alike(id, newest) then seal = nil end
if seal then seal.namespace = (not seal.namespace or seal.namespace == own) and own or '*' end

local function write_chunks(log, offset, bytes)
  local number, within = floor(offset / CHUNK), offset % CHUNK
  if within > 0 then bytes = sub(call('HGET', key, chunk_name(log, number)) or '', 1, within) .. bytes end
  for first = 1, #bytes, CHUNK do
    call('HSET', key, chunk_name(log, number), sub(bytes, first, first + CHUNK - 1))
    number = number + 1
  end
end

local function write_log(name, depth, base_length, length, base)
  call('HSET', key, 'l|' .. name, struct.pack('>BBI4I4', FORMAT, depth, base_length, length) .. base)
end

-- Returns the name of the log that now has the value's bytes.
local function append(value)
  local before, bytes = value.before_record, value.bytes
  local before_length, prefix = body_length(before), prefix_length(before)
  local length = before_length + #bytes
  if not is_log(before) then
    write_chunks(value.log, 0, sub(before, prefix + 1) .. bytes)
    write_log(value.log, 0, 0, length, '')
    call('HSET', key, value.before, sub(before, 1, 1) .. 'l' .. sub(before, 3, prefix) .. value.log)
    return value.log
  end
  local name = sub(before, prefix + 1)
  local head = log_head(name)
  if head.length == before_length then
    write_chunks(name, before_length - head.base_length, bytes)
    write_log(name, head.depth, head.base_length, length, head.base)
    return name
  end
  -- Another branch has continued from here.
  write_chunks(value.log, 0, bytes)
  write_log(value.log, head.depth + 1, before_length, length, name)
  return value.log
end

for i = 7, 6 + empty_count do call('HDEL', key, ARGV[i]) end
for _, value in ipairs(values) do
  if not value.done then
    local record = value.record
    if value.before ~= '' then record = record .. append(value) end
    call('HSET', key, value.name, record)
  end
end
call('HSET', key, 'c|' .. member, document)
call('ZADD', ids, 0, member)
if not newest or is_after(id, newest) then call('HSET', key, 'n', id) end
count_writing(seal)
set_deadline(ttl)
return {}
"""
)


PUT_WRITES = Script(
    _COMMON
    + """
local ttl, member, task = ARGV[1], ARGV[2], ARGV[3]
local name = 'w|' .. member
local field = known(name, call('HGET', key, name)) or struct.pack('>B', FORMAT)
if refused then return refused end
set_deadline(ttl)
local seal = find_seal()

local function find(index)
  local first, last
  each_write(field, function(its_index, its_task, from, to)
    if its_task == task and its_index == index then first, last = from, to end
  end)
  return first, last
end

-- Regular writes are written once; errors, interrupts and answers to them replace what was there.
local existed = {}
each_write(field, function(index, its_task)
  if its_task == task then existed[index] = true end
end)
for position = 4, #ARGV, 3 do
  local index, rest, data = tonumber(ARGV[position]), ARGV[position + 1], ARGV[position + 2]
  if index < 0 or not existed[index] then
    local first, last = nil, nil
    if index < 0 then first, last = find(index) end
    if first then
      field = sub(field, 1, first - 1) .. sub(field, last + 1)
      call('HDEL', key, own_field(member, index, task))
    end
    local ending = data .. 'd'
    if #data > INLINE_WRITE or #field > WRITES_FIELD then
      call('HSET', key, own_field(member, index, task), data)
      ending = 'o'
    end
    local record = struct.pack('>i4I4', index, #task) .. task .. rest .. ending
    field = field .. struct.pack('>I4', #record + 4) .. record
  end
end
call('HSET', key, name, field)
count_writing(seal)
set_deadline(ttl)
return {}
"""
)


# Deletes checkpoints and the values that only they have, unless the thread was written to after its examination.
REMOVE = Script(
    _COMMON
    + """
local seen, newest, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
if (call('HGET', key, 'p') or '') ~= seen then return '' end
local fields = {}
for i = 4, 3 + count do fields[i] = known('w|' .. ARGV[i], call('HGET', key, 'w|' .. ARGV[i])) end
if refused then return refused end
local own = {}
for i = 4, 3 + count do own[i] = own_fields(ARGV[i], fields[i]) end
local seal = find_seal()
for i = 4, 3 + count do
  local member = ARGV[i]
  for _, name in ipairs(own[i]) do call('HDEL', key, name) end
  call('HDEL', key, 'c|' .. member, 'w|' .. member)
  call('ZREM', ids, member)
end
for i = 4 + count, #ARGV do call('HDEL', key, ARGV[i]) end
if call('ZCARD', ids) == 0 then
  call('UNLINK', key, ids)
  return '0'
end
call('HSET', key, 'n', newest)
-- Another process that deletes from this thread must examine it again.
return string.format('%d', count_writing(seal))
"""
)


# Writes a portion of a thread's copy. The copy becomes visible with the ids, which come last.
RESTORE = Script(
    _COMMON
    + """
local ttl, newest, expire, field_count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- The copied data may have any format.
call('HDEL', key, 's')
for i = 5, 4 + 2 * field_count, 2 do call('HSET', key, ARGV[i], ARGV[i + 1]) end
for i = 5 + 2 * field_count, #ARGV, 500 do
  local members = {}
  for j = i, math.min(i + 499, #ARGV) do
    members[#members + 1] = 0
    members[#members + 1] = ARGV[j]
  end
  call('ZADD', ids, unpack(members))
end
if newest == '' then
  if expire ~= '0' then set_deadline(expire) end
  return 1
end
local present = call('HGET', key, 'n')
if not present or is_after(newest, present) then call('HSET', key, 'n', newest) end
count_writing(nil)
if expire ~= '0' then call('PERSIST', key) end
set_deadline(ttl)
return 1
"""
)

ALL = (READ, HEADS, PUT, PUT_WRITES, REMOVE, RESTORE)
