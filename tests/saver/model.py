"""InMemorySaver with the operations that it lacks, straightforwardly: what the saver is compared with."""

from __future__ import annotations

from langgraph.checkpoint.memory import InMemorySaver


class Model(InMemorySaver):
    """Deletes and copies by taking the dictionaries apart."""

    def _delete(self, thread_id, namespace, checkpoint_id):
        del self.storage[thread_id][namespace][checkpoint_id]
        self.writes.pop((thread_id, namespace, checkpoint_id), None)

    def checkpoints(self, thread_id):
        return [(namespace, each) for namespace, ids in self.storage.get(thread_id, {}).items() for each in ids]

    def prune(self, thread_ids, *, strategy="keep_latest"):
        for thread_id in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread_id)
                continue
            for namespace, checkpoint_id in self.checkpoints(thread_id):
                if checkpoint_id != max(self.storage[thread_id][namespace]):
                    self._delete(thread_id, namespace, checkpoint_id)

    def delete_for_runs(self, run_ids):
        for thread_id in list(self.storage):
            for namespace, checkpoint_id in self.checkpoints(thread_id):
                metadata = self.serde.loads_typed(self.storage[thread_id][namespace][checkpoint_id][1])
                if metadata.get("run_id") in run_ids:
                    self._delete(thread_id, namespace, checkpoint_id)
            if not self.checkpoints(thread_id):
                self.delete_thread(thread_id)

    def copy_thread(self, source_thread_id, target_thread_id):
        for namespace, checkpoint_id in self.checkpoints(source_thread_id):
            self.storage[target_thread_id][namespace][checkpoint_id] = self.storage[source_thread_id][namespace][
                checkpoint_id
            ]
        for saved in (self.writes, self.blobs):
            for key, value in list(saved.items()):
                if key[0] == source_thread_id:
                    saved[(target_thread_id, *key[1:])] = dict(value) if isinstance(value, dict) else value
