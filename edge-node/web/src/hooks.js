// What this page changes in hls.js: where a stream is joined, and what is handed to it of each fragment.

import { misplaced } from './playlist.js';

/// A stream controller of hls.js that joins where `where` says (without an answer it joins as hls.js does), and that places the
/// playlist of a variant by the segments of the variant before.
export const joining = (Controller, where) => class extends Controller {
  setStartPosition(details, sliding) {
    super.setStartPosition(details, sliding);
    if (this.startPosition !== -1 || !details.live) return;
    const at = where(details);
    if (at !== null) this.startPosition = this.nextLoadPosition = this.lastCurrentTime = at;
  }

  alignPlaylists(details, previous, loaded) {
    super.alignPlaylists(details, previous, loaded);
    const by = misplaced(details, loaded);
    if (by !== 0) for (const fragment of [...details.fragments, details.fragmentHint]) fragment?.addStart(by);
    return details.fragmentStart;
  }
};

/// A loader of fragments that hands those of the main track to `trim` before hls.js sees them.
export const trimming = (Loader, trim) => class extends Loader {
  load(context, config, callbacks) {
    const { frag } = context;
    const isMedia = frag?.type === 'main' && frag.sn !== 'initSegment';
    super.load(context, config, !isMedia ? callbacks : {
      ...callbacks,
      onSuccess: (response, ...rest) => {
        if (response.data instanceof ArrayBuffer) response.data = trim(response.data);
        callbacks.onSuccess(response, ...rest);
      },
    });
  }
};
