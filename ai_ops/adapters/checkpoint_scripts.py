"""What Redis carries out by itself, in Lua: a look and a deletion in one step."""

from __future__ import annotations

# One step of a SCAN, its keys joined: a client in Python takes a microsecond for each string of a reply, as long as
# all else that is done with most keys. ARGV: the cursor; COUNT; how long the text may become, for a few huge keys
# would be copied once more. Returns the cursor, and the number of keys and their text, or the keys.
SCAN_JOINED = """
local reply, size = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2]), 0
local keys = reply[2]
for index = 1, #keys do size = size + #keys[index] end
if size > tonumber(ARGV[3]) then return {reply[1], keys} end
return {reply[1], #keys, table.concat(keys, string.char(10))}
"""
JOINED_BYTES = 1024 * 1024

# A pointer (or ValkeySaver's list, or a shallow saver's only document) is deleted only if it still says what it
# said when the plan was made, and all pointers of a thread or none: a conversation that went on keeps everything.
# KEYS: pointers, thread by thread. ARGV: "1" for a dry run; number of threads; pointers of each thread;
# expected values in the order of KEYS. Returns per thread 1 (deleted) or 0 (changed).
DROP_POINTERS = """
local dry, threads, at, replies = ARGV[1] == '1', tonumber(ARGV[2]), 0, {}
for thread = 1, threads do
  local count, same = tonumber(ARGV[2 + thread]), 1
  for index = at + 1, at + count do
    local kind, value = redis.call('TYPE', KEYS[index]).ok, nil
    if kind == 'string' then value = redis.call('GET', KEYS[index])
    elseif kind == 'list' then value = redis.call('LINDEX', KEYS[index], 0)
    elseif kind == 'ReJSON-RL' then value = redis.call('JSON.GET', KEYS[index], '$.checkpoint.id') end
    if kind ~= 'none' and value ~= ARGV[2 + threads + index] then same = 0 end
  end
  if same == 1 and not dry then
    for index = at + 1, at + count do redis.call('UNLINK', KEYS[index]) end
  end
  at = at + count
  replies[thread] = same
end
return replies
"""

# Deletes keys of the expected types. KEYS: the keys, those of one kind after the other. ARGV: "1" for a dry run;
# then for each kind how many keys it has, and their types between commas.
# Returns, of each key that was not deleted, its place from 0 and one of the two numbers below.
DROP_KEYS = """
local call, dry, at, replies = redis.call, ARGV[1] == '1', 0, {}
for part = 2, #ARGV, 2 do
  local last, kinds, chosen = at + tonumber(ARGV[part]), {}, {}
  for kind in string.gmatch(ARGV[part + 1], '[^,]+') do kinds[kind] = true end
  for index = at + 1, last do
    local key = KEYS[index]
    local kind = call('TYPE', key).ok
    if kinds[kind] then
      chosen[#chosen + 1] = key
    else
      replies[#replies + 1] = index - 1
      replies[#replies + 1] = kind == 'none' and 0 or 1
    end
  end
  if not dry and #chosen > 0 then call('UNLINK', unpack(chosen)) end
  at = last
end
return replies
"""
GONE, OF_ANOTHER_TYPE = range(2)
